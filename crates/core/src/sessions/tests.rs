//! One server alone: its sessions against requests that no client of ours makes.

mod attach;
mod balance;
mod bounds;
mod clock;
mod cloned;
mod deliver;
mod lines;
mod lists;
mod messages;
mod numbers;
mod pages;
mod retention;
mod rooms;
mod sizes;
mod start;
mod trust;
mod verify;
mod world;
