//! placeholder
use crate::{Trouble, out::Out};
use chatty_client::Cluster;
#[derive(Debug, clap::Args)]
pub struct Plan {}
pub fn run(_cluster: &Cluster, _out: Out, _plan: &Plan) -> Result<(), Trouble> {
    Ok(())
}
