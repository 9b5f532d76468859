//! A copy of the core and the simulator with all mutants in it, built once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::list::Mutant;
use crate::weave::{self, Constants, Woven};

/// Asks which mutant is awake; written into the copy of the core.
const SWITCH: &str = include_str!("switch.rs.in");

/// What may be built of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The core's own tests.
    Tests,
    /// The simulator.
    Simulator,
}

/// The copy.
pub struct Copy {
    root: PathBuf,
    folder: PathBuf,
    constants: BTreeSet<String>,
    places: BTreeMap<String, Woven>,
    /// The sources as they were when it was made: they may change while it is used.
    sources: BTreeMap<String, String>,
}

/// A mutant that does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The compiler's code for it.
    pub code: String,
    /// Its first line.
    pub message: String,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    message: Option<Diagnostic>,
    executable: Option<PathBuf>,
    target: Option<Target>,
}
#[derive(Deserialize)]
struct Target {
    name: String,
}
#[derive(Deserialize)]
struct Code {
    code: String,
}
#[derive(Deserialize)]
struct Place {
    file_name: String,
    byte_start: usize,
    is_primary: bool,
}
#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    code: Option<Code>,
    spans: Vec<Place>,
    rendered: Option<String>,
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            sources(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes only what is new: an untouched file is not compiled again.
fn write(path: &Path, text: &str) -> Result<(), String> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|error| format!("{}: {error}", path.display()))
}

impl Copy {
    /// Copies what is built and weaves the mutants in.
    ///
    /// # Errors
    /// A file cannot be read, written or understood.
    pub fn new(root: &Path, mutants: &[&Mutant]) -> Result<Self, String> {
        let folder = root.join("target/mutants/woven");
        let (mut files, mut constants) = (Vec::new(), Constants::default());
        sources(&root.join("crates/core"), &mut files)?;
        sources(&root.join("simulations"), &mut files)?;
        let mut texts = BTreeMap::new();
        for file in files {
            let path = file.strip_prefix(root).map_err(|error| error.to_string())?;
            let text = read(&file)?;
            if path.extension().is_some_and(|extension| extension == "rs") {
                constants.read(&text).map_err(|e| format!("{}: {e}", path.display()))?;
            }
            texts.insert(path.to_string_lossy().into_owned(), text);
        }
        let mut copy = Self {
            root: root.to_path_buf(),
            folder,
            constants: constants.closed(),
            places: BTreeMap::new(),
            sources: BTreeMap::new(),
        };
        let mut by_file: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
        for mutant in mutants {
            by_file.entry(&mutant.file).or_default().push(mutant);
        }
        for (file, text) in &texts {
            let is_core = file.starts_with("crates/core/src") && file.ends_with(".rs");
            let text = if !is_core && file.ends_with(".rs") {
                // A `const fn` of the simulator cannot call what is no `const fn` any more.
                weave::weave(text, &[], &copy.constants).map_err(|e| format!("{file}: {e}"))?.text
            } else if is_core {
                let here = by_file.get(file.as_str()).map_or(&[][..], |here| here);
                let mut woven = weave::weave(text, here, &copy.constants)
                    .map_err(|error| format!("{file}: {error}"))?;
                if file.ends_with("core/src/lib.rs") {
                    woven.text = format!("#![allow(warnings)]\n{}\n{SWITCH}", woven.text);
                }
                let text = woven.text.clone();
                copy.places.insert(file.clone(), woven);
                text
            } else {
                text.clone()
            };
            write(&copy.folder.join(file), &text)?;
        }
        let manifest = read(&root.join("Cargo.toml"))?;
        let members = manifest.lines().map(|line| match line.starts_with("members = ") {
            true => "members = [\"crates/core\", \"simulations\"]",
            false => line,
        });
        write(&copy.folder.join("Cargo.toml"), &members.collect::<Vec<_>>().join("\n"))?;
        if !copy.folder.join("Cargo.lock").exists() {
            write(&copy.folder.join("Cargo.lock"), &read(&root.join("Cargo.lock"))?)?;
        }
        copy.sources = texts;
        Ok(copy)
    }

    /// The mutants that are in it.
    pub fn woven(&self) -> BTreeSet<u32> {
        self.places.values().flat_map(|woven| woven.places.iter().map(|(_, id)| *id)).collect()
    }

    /// Replaces the file of a mutant by one that has this mutant and no other.
    ///
    /// # Errors
    /// A file cannot be read, written or understood.
    pub fn single(&self, mutant: &Mutant) -> Result<(), String> {
        let source = self.sources.get(&mutant.file).ok_or("a file that is not there")?;
        let text = weave::replace(source, mutant, &self.constants)?;
        write(&self.folder.join(&mutant.file), &text)
    }

    /// Puts the woven text of a file back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn restore(&self, file: &str) -> Result<(), String> {
        self.places.get(file).map_or(Ok(()), |woven| write(&self.folder.join(file), &woven.text))
    }

    /// Builds a program of it; `Err` has the mutants that the compiler refuses.
    ///
    /// # Errors
    /// The outer one: something else does not compile.
    pub fn build(
        &self,
        program: Program,
    ) -> Result<Result<PathBuf, BTreeMap<u32, Refused>>, String> {
        let mut cargo = Command::new("cargo");
        match program {
            Program::Tests => cargo.args(["test", "--no-run", "-p", "chatty-core", "--lib"]),
            Program::Simulator => {
                cargo.args(["build", "--release", "-p", "chatty-simulations"]);
                cargo.args(["--bin", "chatty-simulations"])
            }
        };
        let out = cargo
            .args(["--message-format", "json", "--offline", "--target-dir"])
            .arg(self.root.join("target/mutants/target"))
            .current_dir(&self.folder)
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        let wanted = match program {
            Program::Tests => "chatty_core",
            Program::Simulator => "chatty-simulations",
        };
        let (mut refused, mut executable, mut other) = (BTreeMap::new(), None, Vec::new());
        for line in out.stdout.split(|byte| *byte == b'\n') {
            let Ok(message) = serde_json::from_slice::<Message>(line) else { continue };
            if message.reason == "compiler-artifact"
                && message.executable.is_some()
                && message.target.is_some_and(|target| target.name == wanted)
            {
                executable = message.executable;
            }
            let Some(error) = message.message.filter(|message| message.level == "error") else {
                continue;
            };
            match self.blame(&error) {
                Some(id) => {
                    let code = error.code.map_or("syntax".into(), |code| code.code);
                    refused.entry(id).or_insert(Refused { code, message: error.message });
                }
                None => other.push(error.rendered.unwrap_or(error.message)),
            }
        }
        if out.status.success() {
            return executable.map(Ok).ok_or_else(|| format!("cargo built no {wanted}"));
        }
        if refused.is_empty() {
            let said = String::from_utf8_lossy(&out.stderr);
            return Err(format!("{}\n{said}", other.join("\n")));
        }
        Ok(Err(refused))
    }

    /// The mutant whose code an error points at.
    fn blame(&self, error: &Diagnostic) -> Option<u32> {
        let spans = error.spans.iter().filter(|span| span.is_primary);
        spans.chain(error.spans.iter().filter(|span| !span.is_primary)).find_map(|span| {
            let woven = self.places.get(&span.file_name)?;
            let shift = if span.file_name.ends_with("core/src/lib.rs") { 20 } else { 0 };
            let at = span.byte_start - shift;
            let around = woven.places.iter().filter(|(place, _)| place.contains(&at));
            around.min_by_key(|(place, _)| place.len()).map(|(_, id)| *id)
        })
    }
}
