//! Ways between machines that are cut, lossy or narrow.

use std::time::Duration;

use chatty_core::session::LinkState;
use chatty_simulations::history::{Server, What};

use crate::rounds::fault::{Dice, Scene, Strike};
use crate::rounds::machines::{
    Deaf, Narrow, Share, client_address, client_machine, server_address, server_machine,
};
use crate::rounds::system::until;

/// With so many words a second a packet is lost, or waits, within this.
const SHOW_MAX: Duration = Duration::from_secs(20);

/// A server that is not heard for so long is not counted upon: 2 s, and one more for slow machines.
const UNHEARD_FROM: Duration = Duration::from_secs(3);

/// Machines that do not hear each other.
struct Silence(Vec<Deaf>);

impl Silence {
    fn dropped(&self) -> Result<u64, String> {
        self.0.iter().map(Deaf::dropped).sum()
    }

    /// Waits until some packets were dropped.
    fn shows(&self) -> Result<(), String> {
        until("packets are dropped", SHOW_MAX, || match self.dropped()? {
            0 => Err("none".into()),
            _ => Ok(()),
        })
    }

    /// Waits until each of these machines has dropped some.
    fn shows_at(&self, machines: &[String]) -> Result<(), String> {
        until("each drops packets", SHOW_MAX, || {
            for deaf in self.0.iter().filter(|deaf| machines.contains(deaf.machine())) {
                if deaf.dropped()? == 0 {
                    return Err(format!("{} drops none", deaf.machine()));
                }
            }
            Ok(())
        })
    }

    /// All hear again; says how many packets were dropped.
    fn end(&mut self) -> Result<String, String> {
        let dropped = self.dropped()?;
        self.0.clear();
        Ok(format!("{dropped} packets dropped"))
    }
}

/// Waits until one server counts no more upon another that it does not hear; tells whether it says so:
/// one that another fault has taken says nothing.
fn counts_no_more(scene: &Scene<'_>, of: Server, upon: Server) -> Result<bool, String> {
    let (name, other) = (scene.stage.name(of), scene.stage.name(upon));
    until(&format!("{name} does not count upon {other}"), SHOW_MAX, || {
        let Ok(status) = scene.stage.status(of) else { return Ok(false) };
        let link = status.links.iter().find(|link| link.server.as_str() == other);
        match link.map(|link| link.state) {
            Some(LinkState::Up) => Err("the link is up".into()),
            _ => Ok(true),
        }
    })
}

/// Of servers that cannot hear others, by the length of it: how many say so.
fn all_count_no_more(
    scene: &Scene<'_>,
    lasted: Duration,
    ways: &[(Server, Server)],
) -> Result<String, String> {
    if lasted < UNHEARD_FROM {
        return Ok(String::new());
    }
    let mut count = 0;
    for (of, upon) in ways {
        count += usize::from(counts_no_more(scene, *of, *upon)?);
    }
    Ok(format!(", {count} links not up"))
}

/// See [`Fault::CutPair`](crate::rounds::fault::Fault::CutPair) and
/// [`Fault::CutOneWay`](crate::rounds::fault::Fault::CutOneWay).
pub struct Cut {
    one: Server,
    other: Server,
    ways: Ways,
    lasts: Duration,
    silence: Silence,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ways {
    Both,
    /// The other does not hear the one.
    One,
}

impl Cut {
    pub fn draw_pair(dice: &mut Dice) -> Self {
        Self::draw(dice, Ways::Both)
    }

    pub fn draw_one_way(dice: &mut Dice) -> Self {
        Self::draw(dice, Ways::One)
    }

    fn draw(dice: &mut Dice, ways: Ways) -> Self {
        let order = dice.shuffled();
        let (one, other) = (order[0], order[1]);
        Self { one, other, ways, lasts: dice.millis(500, 6000), silence: Silence(Vec::new()) }
    }
}

impl Strike for Cut {
    fn says(&self) -> String {
        let (one, other, ms) = (self.one + 1, self.other + 1, self.lasts.as_millis());
        match self.ways {
            Ways::Both => format!("s{one} and s{other} cut off from each other for {ms} ms"),
            Ways::One => format!("s{other} does not hear s{one} for {ms} ms"),
        }
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        let deaf = |of: Server, to: Server| {
            Deaf::begin(&server_machine(of), &[server_address(to)], Share::All)
        };
        self.silence.0.push(deaf(self.other, self.one)?);
        if self.ways == Ways::Both {
            self.silence.0.push(deaf(self.one, self.other)?);
        }
        scene.note("cut");
        Ok(())
    }

    fn shows(&mut self, _scene: &mut Scene<'_>) -> Result<(), String> {
        self.silence.shows_at(&[server_machine(self.one), server_machine(self.other)])
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        let ways = [(self.other, self.one), (self.one, self.other)];
        let ways = if self.ways == Ways::Both { &ways[..] } else { &ways[..1] };
        let unheard = all_count_no_more(scene, self.lasts, ways)?;
        scene.note("the cut ends");
        Ok(self.silence.end()? + &unheard)
    }
}

/// See [`Fault::Isolate`](crate::rounds::fault::Fault::Isolate).
pub struct Isolate {
    apart: Vec<Server>,
    rest: Vec<Server>,
    lasts: Duration,
    silence: Silence,
}

impl Isolate {
    pub fn draw(dice: &mut Dice) -> Self {
        let minority = dice.number(1, dice.servers() as u64 / 2 + 1) as usize;
        let mut apart = dice.shuffled();
        let rest = apart.split_off(minority);
        Self::of(apart, rest, dice.millis(1000, 6000))
    }

    /// With these sides, for so long.
    pub fn of(apart: Vec<Server>, rest: Vec<Server>, lasts: Duration) -> Self {
        Self { apart, rest, lasts, silence: Silence(Vec::new()) }
    }
}

impl Strike for Isolate {
    fn says(&self) -> String {
        let names = |side: &[Server]| {
            side.iter().map(|server| format!("s{}", server + 1)).collect::<Vec<_>>().join(" ")
        };
        let (apart, rest, ms) = (names(&self.apart), names(&self.rest), self.lasts.as_millis());
        format!("{apart} | {rest} for {ms} ms")
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        for (side, other) in [(&self.apart, &self.rest), (&self.rest, &self.apart)] {
            let servers = other.iter().map(|server| server_address(*server));
            let clients = other.iter().map(|server| client_address(*server));
            let unheard: Vec<_> = servers.chain(clients).collect();
            for server in side {
                for machine in [server_machine(*server), client_machine(*server)] {
                    self.silence.0.push(Deaf::begin(&machine, &unheard, Share::All)?);
                }
            }
        }
        let sides = [&self.apart, &self.rest].map(|side| side.iter().copied().collect());
        scene.recorder.note(What::Cut(sides.into()));
        scene.note("cut");
        Ok(())
    }

    fn shows(&mut self, _scene: &mut Scene<'_>) -> Result<(), String> {
        let servers = self.apart.iter().chain(&self.rest);
        self.silence.shows_at(&servers.map(|server| server_machine(*server)).collect::<Vec<_>>())
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        let across = |one: &Server| {
            let one = *one;
            self.rest.iter().flat_map(move |other| [(one, *other), (*other, one)])
        };
        let ways: Vec<_> = self.apart.iter().flat_map(across).collect();
        let unheard = all_count_no_more(scene, self.lasts, &ways)?;
        scene.recorder.note(What::Healed);
        scene.note("the cut ends");
        Ok(self.silence.end()? + &unheard)
    }
}

/// See [`Fault::Loss`](crate::rounds::fault::Fault::Loss).
pub struct Loss {
    percent: u64,
    /// Who loses what of whom, by machine and address, and in words.
    ways: Vec<(String, String, String)>,
    lasts: Duration,
    silence: Silence,
}

impl Loss {
    /// Up to three ways: between servers, and from a server to clients or back.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut ways = Vec::new();
        for _ in 0..dice.number(1, 4) {
            let order = dice.shuffled();
            let (from, to) = (order[0], order[1]);
            ways.push(match dice.number(0, 4) {
                0 => {
                    (client_machine(to), server_address(to), format!("s{0} to its clients", to + 1))
                }
                1 => (
                    server_machine(to),
                    client_address(to),
                    format!("the clients of s{0} to it", to + 1),
                ),
                _ => (
                    server_machine(to),
                    server_address(from),
                    format!("s{} to s{}", from + 1, to + 1),
                ),
            });
        }
        let (percent, lasts) = (dice.number(1, 31), dice.millis(2000, 5000));
        Self { percent, ways, lasts, silence: Silence(Vec::new()) }
    }
}

impl Strike for Loss {
    fn says(&self) -> String {
        let ways: Vec<_> = self.ways.iter().map(|(_, _, way)| way.as_str()).collect();
        format!(
            "{} % lost from {} for {} ms",
            self.percent,
            ways.join(", "),
            self.lasts.as_millis()
        )
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        for (machine, address, _) in &self.ways {
            let share = Share::Percent(self.percent);
            self.silence.0.push(Deaf::begin(machine, std::slice::from_ref(address), share)?);
        }
        scene.note("packets get lost");
        Ok(())
    }

    fn shows(&mut self, _scene: &mut Scene<'_>) -> Result<(), String> {
        self.silence.shows()
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        scene.note("no packet gets lost any more");
        self.silence.end()
    }
}

/// See [`Fault::Narrow`](crate::rounds::fault::Fault::Narrow).
pub struct Narrowed {
    victim: Server,
    kbit: u64,
    lasts: Duration,
    narrow: Option<Narrow>,
}

impl Narrowed {
    /// From less than what is said to enough for it.
    pub fn draw(dice: &mut Dice) -> Self {
        let victim = dice.shuffled()[0];
        let (kbit, lasts) = (dice.number(64, 512), dice.millis(2000, 5000));
        Self { victim, kbit, lasts, narrow: None }
    }

    fn held_up(&self) -> Result<u64, String> {
        self.narrow.as_ref().ok_or("the cable is as it was")?.held_up()
    }
}

impl Strike for Narrowed {
    fn says(&self) -> String {
        let (victim, ms) = (self.victim + 1, self.lasts.as_millis());
        format!("{} kbit/s to and from s{victim} for {ms} ms", self.kbit)
    }

    fn strike(&mut self, scene: &mut Scene<'_>) -> Result<(), String> {
        self.narrow = Some(Narrow::begin(&server_machine(self.victim), self.kbit)?);
        scene.note("narrow");
        Ok(())
    }

    fn shows(&mut self, _scene: &mut Scene<'_>) -> Result<(), String> {
        until("packets wait for each other", SHOW_MAX, || match self.held_up()? {
            0 => Err("none does".into()),
            _ => Ok(()),
        })
    }

    fn lasts(&self) -> Duration {
        self.lasts
    }

    fn heal(&mut self, scene: &mut Scene<'_>) -> Result<String, String> {
        let held_up = self.held_up()?;
        self.narrow = None;
        scene.note("wide again");
        Ok(format!("{held_up} times a packet waited or was dropped"))
    }
}
