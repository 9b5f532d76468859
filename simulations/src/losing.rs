//! A write of shared state is on one disk alone, and that disk loses it: what the write had beaten must
//! be there still, on that disk too.

use std::time::Duration;

use chatty_core::client::{Ask, Command, Input as ClientInput};
use chatty_core::event::VOID;
use chatty_core::id::{EventId, LinkId, RoomId};
use chatty_core::io::Input;
use chatty_core::register::{Register, RegisterKey};
use chatty_core::rng::Rng;
use chatty_core::session::Mode;
use chatty_core::time::Key;

use crate::disk::Disk;
use crate::faults::Swarm;
use crate::luck::Stream;
use crate::person::room_name;
use crate::world::{Action, Failure, World};

/// Lives through it; returns how many writes that lost had been erased everywhere in the end.
///
/// # Errors
/// A rule that was broken on the way.
pub fn the_only_winner_is_lost(seed: u64) -> Result<usize, Failure> {
    let mut world = World::with(Swarm::calm(3, 3), Rng::new(seed));
    world.gather()?;
    let people = world.people.len() as u64;
    let p = world.luck.of(Stream::Strike).below(people) as usize;
    let everybody = |text: &'static str| {
        move |world: &World| world.servers.iter().all(|server| topic(&server.disk) == text)
    };
    world.ask(p, Ask::Open { room: room_name(0), last: 0, mode: Mode::Join })?;
    for text in ["first", "second"] {
        world.set_topic(p, text)?;
        world.expect(everybody(text), "a topic does not reach all servers")?;
    }
    let beaten = topic_key(&world.servers[0].disk).event();
    let Some(alone) = world.people[p].client.server().cloned() else {
        return Err(world.failure("somebody has no server".into()));
    };
    let alone = world.servers.iter().position(|server| server.slot == alone).unwrap_or(0);
    world.set_apart(alone);
    world.set_topic(p, "third")?;
    let here = move |world: &World| topic(&world.servers[alone].disk) == "third";
    world.expect(here, "a topic does not get to the disk of the server that took it")?;
    let winner = topic_key(&world.servers[alone].disk).event();
    // Long enough for whatever is erased from time to time.
    world.go_until(Duration::from_secs(4), |_| false)?;

    world.kill(alone);
    let mut rng = world.luck.of(Stream::Strike).clone();
    loop {
        let server = &mut world.servers[alone];
        let whole = server.disk.clone();
        server.cut_out_damage(&mut rng);
        let holds = |event: EventId| server.disk.upto(event.log) >= event.seq;
        if holds(beaten) && !holds(winner) {
            break;
        }
        server.disk = whole;
    }
    *world.luck.of(Stream::Strike) = rng;
    for other in (0..world.servers.len()).filter(|other| *other != alone) {
        world.unblock(alone, other, None);
        world.unblock(other, alone, None);
    }
    world.later(0, Action::Start { server: alone });
    world.expect(|world| world.differences().is_none(), "the servers do not agree")?;
    world.final_checks().map_err(|what| world.failure(what))?;
    world.expect(everybody("second"), "what was beaten by what is lost is not there again")?;
    world.go_until(Duration::from_secs(4), |_| false)?;
    Ok(world.servers.iter().map(|server| erased(&server.disk)).min().unwrap_or(0))
}

fn register(disk: &Disk) -> Option<&Register> {
    disk.registers().get(&RegisterKey::Topic(RoomId::public(&room_name(0))))
}

fn topic(disk: &Disk) -> &str {
    match register(disk) {
        Some(Register::Topic { text, .. }) => text,
        _ => "",
    }
}

fn topic_key(disk: &Disk) -> Key {
    register(disk).and_then(Register::winner).unwrap_or(Key::MIN)
}

fn erased(disk: &Disk) -> usize {
    disk.logs().values().flatten().filter(|entry| entry.event.kind == VOID).count()
}

impl World {
    /// Ends a server's connections to others and lets it make no new ones; what was under way is gone.
    fn set_apart(&mut self, alone: usize) {
        let cables: Vec<(u64, [usize; 2])> =
            self.cables.iter().map(|(id, cable)| (*id, cable.ends)).collect();
        for (id, ends) in cables.into_iter().filter(|(_, ends)| ends.contains(&alone)) {
            for end in ends {
                self.tell_link(id, end, Input::LinkDown(LinkId(id)));
            }
        }
        for other in (0..self.servers.len()).filter(|other| *other != alone) {
            self.block(alone, other, None);
            self.block(other, alone, None);
        }
    }

    fn set_topic(&mut self, p: usize, text: &str) -> Result<(), Failure> {
        self.ask(p, Ask::Topic { room: room_name(0), text: Some(text.into()) })
    }

    fn ask(&mut self, p: usize, ask: Ask) -> Result<(), Failure> {
        let ticket = self.people[p].ticket();
        let asked = self.drive(p, Some(ClientInput::Command(Command::Ask { ticket, ask })));
        asked.map_err(|what| self.failure(what))
    }

    fn expect(&mut self, holds: impl Fn(&Self) -> bool, or: &str) -> Result<(), Failure> {
        if self.go_until(Duration::from_secs(60), holds)? {
            return Ok(());
        }
        let differences = self.differences().unwrap_or_default();
        Err(self.failure(format!("{or}: {differences}")))
    }
}
