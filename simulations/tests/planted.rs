//! A fault of the world itself is found, made short, written down, replayed and drawn: disks that
//! call things synced which a crash takes away.

use chatty_simulations::live;
use chatty_simulations::page::page;
use chatty_simulations::schedule::shrink::shrink;
use chatty_simulations::schedule::text::Written;
use chatty_simulations::schedule::{Plant, Schedule};
use chatty_simulations::world::World;

fn planted(seed: u64) -> Schedule {
    Schedule { plant: Some(Plant::LyingDisk), ..Schedule::draw(seed) }
}

#[test]
fn a_disk_that_lies_is_found_made_short_replayed_and_drawn() {
    let (seed, world, failure) = (1..200)
        .find_map(|seed| {
            let mut world = World::of(&planted(seed));
            live(&mut world).err().map(|failure| (seed, world, failure))
        })
        .expect("one of 200 seeds finds it");
    assert!(live(&mut World::new(seed)).is_ok(), "with honest disks all is well");

    let lived = world.lived();
    let shrunk = shrink(&lived, 150).expect("what was lived fails again");
    assert_eq!(shrunk.failure.kind(), failure.kind(), "for the same reason");
    assert!(shrunk.schedule.entries.len() * 2 < lived.entries.len(), "it is much shorter");
    assert!(shrunk.schedule.strikes() >= 1, "without a crash no disk loses anything");

    let fails = Some(shrunk.failure.kind());
    let written = Written { schedule: shrunk.schedule, why: "a test".into(), fails };
    let read = Written::parse(&written.write()).expect("a file of our own");
    assert_eq!(read.fails, written.fails);
    let mut world = World::of(&read.schedule);
    world.tape();
    let again = live(&mut world).expect_err("it fails again");
    assert_eq!((again.what.as_str(), again.at), (&*shrunk.failure.what, shrunk.failure.at));

    let honest = Schedule { plant: None, ..read.schedule };
    assert!(live(&mut World::of(&honest)).is_ok(), "it is the disk's fault");

    let page = page("a lying disk", &world, Some(&again));
    let (_, data) = page.split_once("id=\"data\">").expect("its data");
    let (data, _) = data.split_once("</script>").expect("the end of it");
    let data: serde_json::Value = serde_json::from_str(data).expect("json");
    assert_eq!(data["failure"]["what"], again.what.as_str());
    let faults = data["faults"].as_array().expect("bars");
    assert_eq!(faults.len(), world.happened().len(), "every fault is a bar");
    assert!(data["arrows"].as_array().is_some_and(|all| all.len() > 50), "messages are arrows");
}
