//! Would this server start? Everything that a start looks at, and nothing changed.

use std::path::PathBuf;
use std::time::SystemTime;

use chatty_net::endpoint::BindError;
use chatty_net::{Endpoint, ServerEndpointConfig, in_time};

use crate::config::{self, Config, ConfigError};
use crate::credentials::{self, Proof, ProofError};
use crate::data_dir::{self, DataDirError};

/// Why a server would not start.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files that say who it is.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The port, or the certificate.
    #[error("{}: {source}", file.display())]
    Bind {
        /// The configuration or the certificate.
        file: PathBuf,
        /// What is wrong.
        source: BindError,
    },
    /// The data folder.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The async runtime.
    #[error("the system refuses threads or timers: {0}")]
    Runtime(std::io::Error),
}

/// Checks what a start would: the configuration, the certificate against its key, the authority
/// and the clock, the port, the data folder.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(file: &std::path::Path) -> Result<(Config, Proof), CheckError> {
    let config = config::load(file)?;
    let proof = credentials::load(&config)?;
    data_dir::check(&config.data, &proof.identity)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CheckError::Runtime)?;
    runtime.block_on(async { bind(&config, &proof).map(drop) })?;
    // It would start, and take no writes: better to know it before.
    in_time(proof.validity, SystemTime::now()).map_err(|error| CheckError::Bind {
        file: config.certificate.clone(),
        source: BindError::Credentials(error),
    })?;
    Ok((config, proof))
}

/// Verifies the certificate and the token key, and takes the port. Must be called inside a tokio
/// runtime.
///
/// # Errors
/// [`CheckError::Bind`], [`CheckError::Proof`].
pub(crate) fn bind(config: &Config, proof: &Proof) -> Result<Endpoint, CheckError> {
    // One secret a server, known to nobody else, and the same after a restart.
    let key = proof.credentials.key_pem.as_bytes();
    let endpoint = ServerEndpointConfig {
        listen: config.listen,
        credentials: proof.credentials.clone(),
        authority_pem: proof.authority_pem.clone(),
        reset_secret: blake3::derive_key("chatty 1 stateless reset", key),
    };
    let endpoint = Endpoint::server(endpoint).map_err(|source| {
        let file = match source {
            BindError::Credentials(_) => config.certificate.clone(),
            _ => config.file.clone(),
        };
        CheckError::Bind { file, source }
    })?;
    proof.check_token_key(config)?;
    Ok(endpoint)
}

#[cfg(test)]
mod tests;
