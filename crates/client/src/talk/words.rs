//! What a person typed: a command or a message.

/// A line of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(String),
    Join(String),
    Leave(Option<String>),
    Direct(String, Option<String>),
    Who(Option<String>),
    Rooms,
    History(u64),
    Nick(String),
    Topic(Option<String>),
    Kick(String, String),
    Op(String),
    Deop(String),
    Status,
    Help,
    Quit,
    /// Nothing was typed.
    Nothing,
    /// Not understood, and what to do.
    Wrong(String),
}

/// Every command with what follows it and what it does, in the order of the help.
pub const HELP: &[(&str, &str)] = &[
    ("/join ROOM", "join a room, or go back to one"),
    ("/leave [ROOM]", "leave a room"),
    ("/dm NICK [TEXT]", "talk to one person; without a text, all that follows"),
    ("/who [ROOM]", "who takes part, and at which servers"),
    ("/rooms", "the rooms"),
    ("/history [N]", "the last N messages"),
    ("/nick NAME", "go by another name"),
    ("/topic [TEXT]", "show or set the topic"),
    ("/kick NICK [REASON]", "put somebody out (founder and ops)"),
    ("/op NICK, /deop NICK", "make somebody op, or not"),
    ("/status", "the servers of the cluster"),
    ("/quit", "leave (also Ctrl-C and Ctrl-D)"),
    ("//text", "say something that begins with a slash"),
];

/// The commands alone, for completion.
pub fn commands() -> impl Iterator<Item = &'static str> {
    let words = HELP.iter().flat_map(|(usage, _)| usage.split([' ', ',', '[']));
    words.filter(|word| word.starts_with('/') && !word.starts_with("//")).chain(["/help"])
}

/// Lines of `/history` without a number.
const HISTORY: u64 = 20;

pub fn parse(line: &str) -> Said {
    let Some(command) = line.strip_prefix('/') else {
        return if line.trim().is_empty() { Said::Nothing } else { Said::Text(line.to_owned()) };
    };
    if command.starts_with('/') {
        return Said::Text(command.to_owned());
    }
    let (command, rest) = split(command);
    let (first, more) = split(rest);
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let wants = |what: &str| Said::Wrong(format!("/{command} wants {what}; see /help"));
    match (command, first) {
        ("join" | "j", "") => wants("a room"),
        ("join" | "j", room) => Said::Join(room.to_owned()),
        ("leave" | "part", room) => Said::Leave(some(room)),
        ("dm" | "msg", "") => wants("a nick"),
        ("dm" | "msg", nick) => {
            Said::Direct(nick.strip_prefix('@').unwrap_or(nick).to_owned(), some(more))
        }
        ("who" | "names", room) => Said::Who(some(room)),
        ("rooms" | "list", _) => Said::Rooms,
        ("history", "") => Said::History(HISTORY),
        ("history", count) => match count.parse() {
            Ok(count) => Said::History(count),
            Err(_) => wants("a number"),
        },
        ("nick", "") => wants("a name"),
        ("nick", nick) => Said::Nick(nick.to_owned()),
        ("topic", _) => Said::Topic(some(rest)),
        ("kick", "") => wants("a nick"),
        ("kick", nick) => Said::Kick(nick.to_owned(), more.to_owned()),
        ("op" | "deop", "") => wants("a nick"),
        ("op", nick) => Said::Op(nick.to_owned()),
        ("deop", nick) => Said::Deop(nick.to_owned()),
        ("status", _) => Said::Status,
        ("help" | "h" | "?", _) => Said::Help,
        ("quit" | "q" | "exit" | "bye", _) => Said::Quit,
        _ => Said::Wrong(format!("there is no /{command}; see /help")),
    }
}

/// The first word, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((first, rest)) => (first, rest.trim_start()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_and_slashes_commands() {
        assert_eq!(parse("hello /there"), Said::Text("hello /there".into()));
        assert_eq!(parse("  "), Said::Nothing);
        assert_eq!(parse("//shrug"), Said::Text("/shrug".into()));
        assert_eq!(parse("/join  tea "), Said::Join("tea".into()));
        assert_eq!(parse("/dm @bob hi  you"), Said::Direct("bob".into(), Some("hi  you".into())));
        assert_eq!(parse("/kick bob"), Said::Kick("bob".into(), String::new()));
        assert_eq!(parse("/topic tea at five"), Said::Topic(Some("tea at five".into())));
        assert_eq!(parse("/leave"), Said::Leave(None));
        assert!(matches!(parse("/joni"), Said::Wrong(why) if why.contains("/joni")));
        assert!(matches!(parse("/history x"), Said::Wrong(_)));
    }

    #[test]
    fn every_command_of_the_help_is_understood() {
        for command in commands() {
            let line = format!("{command} 1 2");
            assert!(!matches!(parse(&line), Said::Wrong(_) | Said::Text(_)), "{line}");
        }
    }
}
