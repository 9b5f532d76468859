//! One server alone: its sessions against requests that no client of ours makes.

mod bounds;
mod clock;
mod cloned;
mod numbers;
mod start;
mod trust;
mod verify;
mod world;
