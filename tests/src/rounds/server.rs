//! One server: its folder and its process.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::clock::Clock;
use super::machines;
use super::system::{at, until};
use crate::cluster::programs;

/// A server that is asked to stop has ended within this.
const STOP_MAX: Duration = Duration::from_secs(15);

/// A server; dropped, its process is killed. It does not outlive this process either.
#[derive(Debug)]
pub struct Server {
    name: String,
    home: PathBuf,
    /// Where it runs; `None`: on the network of this process.
    machine: Option<String>,
    process: Option<Child>,
}

impl Server {
    /// One whose folder is there, and that does not run.
    pub fn new(name: &str, home: PathBuf, machine: Option<String>) -> Self {
        Self { name: name.into(), home, machine, process: None }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Its data.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.home.join("server.toml")
    }

    /// Where it writes its log.
    pub fn log_file(&self) -> PathBuf {
        self.home.join("log")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        // One that never started has no log.
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Begins its process; with a clock, it lives by that one.
    ///
    /// # Errors
    /// What the system says, or that it runs.
    pub fn begin(&mut self, clock: Option<&Clock>) -> Result<(), String> {
        if self.process.is_some() {
            return Err(format!("{} runs already", self.name));
        }
        let file = self.log_file();
        let log = OpenOptions::new().create(true).append(true).open(&file).map_err(at(&file))?;
        let both = log.try_clone().map_err(at(&file))?;
        // It ends with this process, however that ends.
        let mut command = match &self.machine {
            Some(machine) => machines::on(machine, "setpriv"),
            None => Command::new("setpriv"),
        };
        command.args(["--pdeathsig", "KILL", "env"]);
        for (name, value) in clock.map(Clock::rules).into_iter().flatten() {
            command.arg(format!("{name}={value}"));
        }
        command.arg(programs().join("chatty-server")).args(["run", "--config"]).arg(self.config());
        let child = command.stdin(Stdio::null()).stdout(log).stderr(both).spawn();
        self.process = Some(child.map_err(|error| format!("starting {}: {error}", self.name))?);
        Ok(())
    }

    /// Its process.
    ///
    /// # Errors
    /// That it does not run.
    pub fn pid(&self) -> Result<Pid, String> {
        let child = self.process.as_ref().ok_or_else(|| format!("{} does not run", self.name))?;
        i32::try_from(child.id()).map(Pid::from_raw).map_err(|error| error.to_string())
    }

    /// Sends it a signal at this very moment.
    ///
    /// # Errors
    /// That it is not there.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        kill(self.pid()?, signal).map_err(|error| format!("{signal} to {}: {error}", self.name))
    }

    /// Sees that it is dead by SIGKILL, which it was sent.
    ///
    /// # Errors
    /// That it ended otherwise.
    pub fn is_killed(&mut self) -> Result<(), String> {
        let status = self.end()?;
        if status.signal() == Some(Signal::SIGKILL as i32) {
            return Ok(());
        }
        Err(format!("{} was killed, and it ended with {status}", self.name))
    }

    /// Asks it to stop, and waits for its end.
    ///
    /// # Errors
    /// That it does not end, or not well.
    pub fn stop(&mut self) -> Result<(), String> {
        self.signal(Signal::SIGTERM)?;
        self.has_stopped()
    }

    /// Waits for the end of one that is about to stop.
    ///
    /// # Errors
    /// That it does not end, or not well.
    pub fn has_stopped(&mut self) -> Result<(), String> {
        let name = self.name.clone();
        until(&format!("{name} has stopped"), STOP_MAX, || {
            self.exit()?.map(drop).ok_or_else(|| "it runs".into())
        })?;
        let status = self.end()?;
        if status.success() {
            return Ok(());
        }
        Err(format!("{name} was asked to stop and ended with {status}: {}", self.last_word()))
    }

    /// How its process ended, if it has.
    ///
    /// # Errors
    /// What the system says.
    pub fn exit(&mut self) -> Result<Option<ExitStatus>, String> {
        let name = &self.name;
        let child = self.process.as_mut().ok_or_else(|| format!("{name} was not started"))?;
        child.try_wait().map_err(|error| format!("{name}: {error}"))
    }

    /// The last line of its log.
    pub fn last_word(&self) -> String {
        self.log().lines().last().unwrap_or("it has logged nothing").to_owned()
    }

    fn end(&mut self) -> Result<ExitStatus, String> {
        let child = self.process.take();
        let mut child = child.ok_or_else(|| format!("{} does not run", self.name))?;
        child.wait().map_err(|error| format!("{}: {error}", self.name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            // One that has ended already is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
