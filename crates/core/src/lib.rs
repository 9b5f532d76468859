//! wip
pub mod id;
pub mod time;
