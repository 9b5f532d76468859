//! The mutants, as `cargo mutants --list` names them.
//!
//! A mutant is known by its file, its words and its number among equals in one function: a name
//! that stays when lines above it move. Its verdict is worth as much as the text of its function:
//! a fingerprint of that is kept beside it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// What a mutant changes, in the words of cargo-mutants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Genre {
    /// A function returns at once.
    FnValue,
    /// Another operator stands between two operands.
    BinaryOperator,
    /// An operator before an operand is gone.
    UnaryOperator,
    /// An arm of a match is gone.
    MatchArm,
    /// A guard of a match holds always or never.
    MatchArmGuard,
    /// A field comes from the base of a struct expression.
    StructField,
}

#[derive(Clone, Copy, Deserialize)]
struct Position {
    line: usize,
    column: usize,
}

#[derive(Clone, Copy, Deserialize)]
struct Span {
    start: Position,
    end: Position,
}

#[derive(Deserialize)]
struct ListedFunction {
    return_type: String,
    span: Span,
}

#[derive(Deserialize)]
struct Listed {
    file: String,
    function: Option<ListedFunction>,
    genre: Genre,
    name: String,
    replacement: String,
    span: Span,
}

/// One mutant.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// Its number in this list, from 1.
    pub id: u32,
    /// The source file, from the root of the workspace.
    pub file: String,
    /// What it does, with a number if its function has several of that name.
    pub name: String,
    /// What it changes.
    pub genre: Genre,
    /// What stands there instead.
    pub replacement: String,
    /// The bytes of the file that are replaced.
    pub range: Range<usize>,
    /// What its function returns, as written.
    pub returns: String,
    /// The text that its verdict holds for.
    pub fingerprint: String,
}

/// Byte offsets of lines, for positions that count characters.
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// The lines of a text.
    pub fn new(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The byte at a line from 1 and a column in characters from 0.
    pub fn byte(&self, line: usize, column: usize) -> usize {
        let start = self.starts.get(line - 1).copied().unwrap_or(self.text.len());
        let rest = &self.text[start..];
        start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
    }

    fn range(&self, span: Span) -> Range<usize> {
        self.byte(span.start.line, span.start.column - 1)
            ..self.byte(span.end.line, span.end.column - 1)
    }
}

/// FNV-1a: a fingerprint needs to be the same on every machine, not safe.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{:08x}", hash >> 32)
}

/// All mutants of the core and the sources they change.
///
/// # Errors
/// cargo-mutants is missing or said something else.
pub fn list(root: &Path) -> Result<(Vec<Mutant>, BTreeMap<String, String>), String> {
    let out = Command::new("cargo")
        .args(["mutants", "--list", "--json", "-p", "chatty-core"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo: {error}"))?;
    if !out.status.success() {
        return Err(format!(
            "cargo mutants --list failed (cargo install cargo-mutants --locked):\n{}",
            String::from_utf8_lossy(&out.stderr)
        ));
    }
    let listed: Vec<Listed> = serde_json::from_slice(&out.stdout).map_err(|e| e.to_string())?;
    let mut sources = BTreeMap::new();
    let mut mutants: Vec<Mutant> = Vec::new();
    let mut equals: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    for one in listed {
        if !sources.contains_key(&one.file) {
            let text = std::fs::read_to_string(root.join(&one.file))
                .map_err(|error| format!("{}: {error}", one.file))?;
            sources.insert(one.file.clone(), text);
        }
        let text = &sources[&one.file];
        let lines = Lines::new(text);
        let range = lines.range(one.span);
        let around = match &one.function {
            Some(function) => &text[lines.range(function.span)],
            None => text[range.start..].lines().next().unwrap_or_default(),
        };
        // "file:line:column: words"
        let words = one.name.splitn(4, ':').nth(3).unwrap_or(&one.name).trim().to_string();
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        let fingerprint = fingerprint(around);
        let key = (one.file.clone(), fingerprint.clone(), words.clone());
        let nth = equals.entry(key).and_modify(|n| *n += 1).or_insert(1);
        mutants.push(Mutant {
            id: u32::try_from(mutants.len() + 1).map_err(|error| error.to_string())?,
            name: if *nth == 1 { words } else { format!("{words} #{nth}") },
            file: one.file,
            genre: one.genre,
            replacement: one.replacement,
            range,
            returns: one.function.map(|function| function.return_type).unwrap_or_default(),
            fingerprint,
        });
    }
    Ok((mutants, sources))
}
