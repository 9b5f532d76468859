//! placeholder
use crate::{Trouble, args::Args};
use chatty_client::Cluster;
pub async fn run(_args: &Args, _cluster: &Cluster) -> Result<(), Trouble> {
    Ok(())
}
