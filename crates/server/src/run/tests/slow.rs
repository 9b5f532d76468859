//! One slow disk of three: whoever is attached elsewhere does not notice it.

use std::sync::{Condvar, Mutex as StdMutex};

use chatty_core::session::{Plain, Sent};
use chatty_core::store::{Batch, Committed, Loaded};

use super::*;
use crate::store::FjallStore;

/// A disk whose writes take as long as the test says.
pub(super) struct Slow {
    pub(super) inner: FjallStore,
    pub(super) pace: Arc<Pace>,
}

#[derive(Default)]
pub(super) struct Pace {
    state: StdMutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) held: bool,
    /// Added to every write.
    delay: Duration,
    /// Whether a write waits for the disk to go on.
    waiting: bool,
    /// Writes that are done.
    done: u64,
}

impl Pace {
    pub(super) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn get<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().unwrap())
    }
}

impl Store for Slow {
    type Reader = <FjallStore as Store>::Reader;

    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        let mut state = self.pace.state.lock().unwrap();
        state.waiting = state.held;
        while state.held {
            state = self.pace.changed.wait(state).unwrap();
        }
        state.waiting = false;
        let delay = state.delay;
        drop(state);
        // The slowness itself, nothing is waited for.
        std::thread::sleep(delay);
        let done = self.inner.commit(batch);
        self.pace.set(|state| state.done += 1);
        done
    }

    fn reader(&self) -> Self::Reader {
        self.inner.reader()
    }
}

/// Three servers, the third on a disk of that pace.
async fn start(made: &Made, pace: &Arc<Pace>) -> Vec<Running> {
    let mut servers = vec![made.start("s1").await, made.start("s2").await];
    let origin = Origin::at(Clock::start().now().wall_ms, random::bits128().unwrap());
    let slow = |inner| Slow { inner, pace: pace.clone() };
    let config = config::load(&made.config("s3")).unwrap();
    servers.push(Running::start_as(config, origin, slow).unwrap());
    servers
}

/// Says something and waits until it is replicated.
pub(super) async fn say(client: &mut Client, text: &str) -> Sent {
    client.say("lobby", text).await;
    client
        .find(|item| match item {
            Item::Sent(sent) if sent.level == Level::Replicated => Some(sent),
            Item::Sent(sent) => panic!("only {sent:?}"),
            Item::Refused(refused) => panic!("{refused:?}"),
            _ => None,
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_fsync_of_one_server_hangs_the_clients_of_the_others_are_served() {
    let (made, pace) = (make(3), Arc::new(Pace::default()));
    let servers = start(&made, &pace).await;
    let mut ann = made.attach("s1").await;
    let mut bob = made.attach("s2").await;
    let (mut carl, mut dave) = (made.attach("s3").await, made.attach("s3").await);
    for client in [&mut ann, &mut bob, &mut carl, &mut dave] {
        client.open("lobby").await;
        client.find(|item| matches!(item, Item::RoomOpened(_)).then_some(())).await;
    }
    say(&mut ann, "before").await;
    for client in [&mut bob, &mut carl, &mut dave] {
        assert_eq!(client.find(text_of).await, "before");
    }

    pace.set(|state| state.held = true);
    let mut said = Vec::new();
    for n in 0..100 {
        for (client, name) in [(&mut ann, "ann"), (&mut bob, "bob")] {
            let text = format!("{n} of {name}");
            assert_eq!(say(client, &text).await.replicas, 2, "s3 has nothing of it on its disk");
            said.push(text);
        }
    }
    let in_time = async {
        while !pace.get(|state| state.waiting) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, in_time).await.expect("a write of s3 hangs");
    // What is said on the slow server reaches the others, whose disks have it long before.
    carl.say("lobby", "slowly").await;
    let heard = |item| text_of(item).filter(|text| text == "slowly");
    bob.find(heard).await;
    // On the slow server's disk there is nothing of all that, so its clients are shown nothing: what
    // Dave asks now is answered behind whatever he was shown.
    let request = RequestId(77);
    dave.ask(Request::Ping(Plain { request })).await;
    dave.find(|item| match item {
        Item::Pong(pong) => (pong.request == request).then_some(()),
        item @ Item::Event(_) => panic!("shown before it is on the disk: {item:?}"),
        _ => None,
    })
    .await;
    assert!(pace.get(|state| state.held && state.waiting), "the fsync of s3 hung all the time");

    pace.set(|state| state.held = false);
    let mut shown = Vec::new();
    let sent = carl
        .find(|item| match item {
            Item::Sent(sent) => Some(sent),
            item => {
                shown.extend(text_of(item));
                None
            }
        })
        .await;
    assert_eq!(sent.level, Level::Replicated);
    assert_eq!(
        shown.iter().filter(|text| *text != "slowly").collect::<Vec<_>>(),
        said.iter().collect::<Vec<_>>()
    );
    for server in servers {
        stop(server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_fsync_of_500_ms_on_one_server_does_not_slow_the_clients_of_the_others() {
    let (made, pace) = (make(3), Arc::new(Pace::default()));
    let servers = start(&made, &pace).await;
    let (mut ann, mut carl) = (made.attach("s1").await, made.attach("s3").await);
    say(&mut ann, "before").await;

    pace.set(|state| (state.delay, state.done) = (Duration::from_millis(500), 0));
    let sends = 50;
    for n in 0..sends {
        say(&mut ann, &format!("text {n}")).await;
    }
    // One after the other: had each waited for that disk, it would have written as often.
    let writes = pace.get(|state| state.done);
    assert!(writes < sends / 2, "{sends} sends in the time of {writes} writes of the slow disk");

    for n in 0..3 {
        assert!(say(&mut carl, &format!("slowly {n}")).await.replicas >= 2);
    }
    assert!(pace.get(|state| state.done) >= 3, "each waited for it");
    pace.set(|state| state.delay = Duration::ZERO);
    for server in servers {
        stop(server).await;
    }
}
