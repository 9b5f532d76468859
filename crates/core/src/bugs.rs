//! Bugs put in on purpose, to see whether the checks find them.
//!
//! They exist only in a build with `--cfg chatty_bugs`, where one is chosen by name at run time;
//! otherwise `bug!` is `false` and nothing of this is left. `scripts/bugs` tries all of them.

/// Whether a bug is on.
macro_rules! bug {
    ($name:ident) => {{
        #[cfg(chatty_bugs)]
        let on = $crate::bugs::is_on($crate::bugs::Bug::$name);
        #[cfg(not(chatty_bugs))]
        let on = false;
        on
    }};
}
pub(crate) use bug;

#[cfg(chatty_bugs)]
pub use chosen::{Bug, choose, is_on};

#[cfg(chatty_bugs)]
mod chosen {
    use std::sync::OnceLock;

    macro_rules! bugs {
        ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
            /// A bug.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Bug {
                $($(#[doc = $doc])+ $name,)+
            }

            impl Bug {
                /// All, by name.
                pub const ALL: &[(&'static str, Self)] = &[$(($text, Self::$name)),+];
            }
        };
    }

    bugs! {
        /// Who tells a link to stop pushing a log stops pushing that log to it, too.
        SymmetricPrune = "symmetric-prune",
        /// `Have` is sent for what is not on the disk yet.
        HaveBeforeFsync = "have-before-fsync",
        /// A server keeps its origin when it starts again.
        OneOrigin = "one-origin",
        /// After two unanswered `Want`s nothing is asked for any more.
        TwoWants = "two-wants",
        /// A feed that is gone is not replaced.
        LostFeed = "lost-feed",
        /// A register's loser is erased before its winner is replicated.
        LoserVoidedEarly = "loser-voided-early",
        /// The floor is tested on the stamp of an event instead of its message's id.
        FloorOnStamp = "floor-on-stamp",
        /// Stamps of others are not followed.
        ClockNotMerged = "clock-not-merged",
        /// Of two events of one message the one that came first is the line.
        AliasByArrival = "alias-by-arrival",
        /// A cursor is taken for a place: what sorts below its newest line is taken for seen.
        CursorAsPosition = "cursor-as-position",
        /// The index of message ids is written after the event.
        LateIndex = "late-index",
        /// A dropped queue is told to nobody.
        SilentDrop = "silent-drop",
        /// Whoever is put out of a room goes on hearing it.
        KickedHears = "kicked-hears",
        /// Of an event of an unknown kind only its hash is kept.
        UnknownErased = "unknown-erased",
        /// Two contents under one name are dropped without a word.
        ForkIgnored = "fork-ignored",
        /// A run that goes on twice takes writes.
        TwinWrites = "twin-writes",
        /// A disk that is accused counts for nothing though it was its copy that held less.
        AccusedForGood = "accused-for-good",
        /// No clock is outside the time of its certificate.
        CertificateIgnored = "certificate-ignored",
        /// A scrub compares neither chains nor sums.
        BlindScrub = "blind-scrub",
    }

    static CHOSEN: OnceLock<Bug> = OnceLock::new();

    /// Turns one on, for the life of the process. The first choice counts.
    pub fn choose(bug: Bug) {
        let _ = CHOSEN.set(bug);
    }

    /// Whether it is on.
    pub fn is_on(bug: Bug) -> bool {
        CHOSEN.get() == Some(&bug)
    }
}
