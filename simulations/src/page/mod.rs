//! A run as one HTML page that needs nothing else: a line for each server and client, messages as
//! arrows, faults as bars, the broken rule marked.
//!
//! All that comes from the run is data in one script element of JSON, in which `<` is escaped; the
//! page puts it on the screen as text only.

use serde_json::{Value, json};

use crate::schedule::Happened;
use crate::tape::{Tape, Who};
use crate::world::{Failure, World};

const PAGE: &str = include_str!("page.html");

/// More of what went from one to another than this is cut off.
const WORDS_MAX: usize = 2000;

/// The page of a run that was lived with a tape.
pub fn page(title: &str, world: &World, failure: Option<&Failure>) -> String {
    let empty = Tape::default();
    let tape = world.tape.as_ref().unwrap_or(&empty);
    let servers = world.server_names();
    let lane = |who: Who| match who {
        Who::Server(n) => n,
        Who::Client(n) => servers.len() + n,
    };
    let lanes = servers
        .iter()
        .map(|(name, late)| json!({ "name": name, "server": true, "late": late }))
        .chain(world.client_names().map(|name| json!({ "name": name, "server": false })));
    let arrows = tape.arrows.iter().map(|arrow| {
        json!({
            "from": lane(arrow.from),
            "to": lane(arrow.to),
            "sent": arrow.sent.as_micros(),
            "came": arrow.came.as_micros(),
            "kind": arrow.kind,
            "what": short(&arrow.what),
        })
    });
    let marks = tape.marks.iter().map(|mark| {
        json!({ "lane": lane(mark.who), "at": mark.at.as_micros(), "what": short(&mark.what) })
    });
    let end = world.now().as_micros();
    let faults = world.happened().iter().map(|happened| {
        let clients = happened.client.map(|n| servers.len() + n);
        let lanes: Vec<usize> = happened.servers.iter().copied().chain(clients).collect();
        json!({
            "name": happened.strike.fault.name(),
            "what": words(happened, &servers),
            "lanes": lanes,
            "from": happened.from.as_micros(),
            "until": happened.until.as_micros().min(end),
        })
    });
    let kinds = |to_server: bool| -> Vec<&str> {
        let mut kinds: Vec<&str> = tape
            .arrows
            .iter()
            .filter(|arrow| match (arrow.from, arrow.to) {
                (Who::Client(_), _) => to_server,
                (_, Who::Client(_)) => !to_server,
                _ => false,
            })
            .map(|arrow| arrow.kind.as_str())
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    };
    let mut about = world.swarm().to_string();
    if tape.left_out > 0 {
        about.push_str(&format!("; the first {} arrows are left out", tape.left_out));
    }
    let data = json!({
        "title": title,
        "about": about,
        "failure": failure.map(|f| json!({ "what": f.what, "at": f.at.as_micros() })),
        "lanes": lanes.collect::<Vec<Value>>(),
        "arrows": arrows.collect::<Vec<Value>>(),
        "marks": marks.collect::<Vec<Value>>(),
        "faults": faults.collect::<Vec<Value>>(),
        "asked": kinds(true),
        "told": kinds(false),
        "span": [world.began().as_micros().saturating_sub(100_000), end],
    });
    PAGE.replacen("@DATA@", &data.to_string().replace('<', "\\u003c"), 1)
}

fn short(what: &str) -> String {
    let mut short: String = what.chars().take(WORDS_MAX).collect();
    if short.len() < what.len() {
        short.push('…');
    }
    short
}

fn words(happened: &Happened, servers: &[(String, bool)]) -> String {
    let names: Vec<&str> = happened
        .servers
        .iter()
        .filter_map(|n| servers.get(*n).map(|(name, _)| name.as_str()))
        .collect();
    let whom = match happened.client {
        Some(client) => format!("person{client}"),
        None => names.join(", "),
    };
    let strike = &happened.strike;
    format!(
        "{whom}, for {:.3} s, {} of 100 hard.{}",
        strike.long.as_secs_f64(),
        strike.hard,
        strike.fault.words()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use chatty_core::time::Time;

    #[test]
    fn words_of_a_run_cannot_leave_the_data_of_its_page() {
        let what = "</script><script>alert(1)</script> \u{2028} \"'".to_string();
        let failure = Failure { what: what.clone(), at: Time::from_micros(7) };
        let page = page(&what, &World::new(1), Some(&failure));
        let rest = page.split_once("id=\"data\">").expect("the data").1;
        let (data, _) = rest.split_once("</script>").expect("its end");
        assert!(!data.contains('<'), "nothing in the data opens an element");
        let read: Value = serde_json::from_str(data).expect("the data is whole");
        assert_eq!(read["failure"]["what"], what);
        assert_eq!(read["title"], what);
    }

    #[test]
    fn the_page_asks_nobody_for_anything() {
        for word in ["http:", "https:", "src=", "href=", "@import", "url(", "fetch("] {
            assert!(!PAGE.contains(word), "{word} is in the page");
        }
    }
}
