//! Where clients run: on this machine's network, or in a network namespace.

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sched::{CloneFlags, setns};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// A runtime with one worker, all of whose sockets are of one network.
#[derive(Debug)]
pub struct Place {
    runtime: Runtime,
}

impl Place {
    /// On the network of this process.
    ///
    /// # Errors
    /// What the system says.
    pub fn here() -> Result<Self, String> {
        Self::build(Builder::new_multi_thread().worker_threads(1))
    }

    /// In a network namespace that `ip netns` has made.
    ///
    /// # Errors
    /// What the system says.
    pub fn in_namespace(name: &str) -> Result<Self, String> {
        let path = Path::new("/run/netns").join(name);
        let file = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let refused = Arc::new(AtomicBool::new(false));
        let told = refused.clone();
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).on_thread_start(move || {
            if setns(&file, CloneFlags::CLONE_NEWNET).is_err() {
                told.store(true, Ordering::Release);
            }
        });
        let place = Self::build(&mut builder)?;
        place.run(std::future::ready(()))?;
        if refused.load(Ordering::Acquire) {
            return Err(format!("cannot enter the network namespace {name}: needs root"));
        }
        Ok(place)
    }

    fn build(builder: &mut Builder) -> Result<Self, String> {
        let runtime = builder.enable_all().build().map_err(|error| error.to_string())?;
        Ok(Self { runtime })
    }

    /// Begins something there.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(task)
    }

    /// Does something there, and waits for it.
    ///
    /// # Errors
    /// That it panicked.
    pub fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        let task = self.spawn(task);
        self.wait(task)
    }

    /// Waits for what was begun.
    ///
    /// # Errors
    /// That it panicked.
    pub fn wait<T>(&self, task: JoinHandle<T>) -> Result<T, String> {
        self.runtime.block_on(task).map_err(|error| error.to_string())
    }
}
