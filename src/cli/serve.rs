//! Runs `pushimg serve`: opens the images, listens, prints what can be pulled, and serves.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::output::Output;
use super::result;
use crate::error::Error;
use crate::push::PushOptions;
use crate::serve::{ImageServer, Offer, ServeOptions};

/// Serves the images until the future is dropped, or until one pull is complete.
pub async fn serve(
    offers: &[Offer],
    listen: SocketAddr,
    until_pulled: UntilPulled,
    options: &PushOptions,
    output: &Output,
) -> Result<(), Error> {
    if !listen.ip().is_loopback() {
        output.warn(&format!(
            "--listen {listen}: everyone who reaches this address can pull these images"
        ));
    }
    let cannot_listen = |error: io::Error| {
        Error::Failed(format!(
            "cannot listen on {listen}: {error}\nhint: choose another port with --listen; 0 is any \
             free one"
        ))
    };
    // Bind before the images are read, because reading may take long and binding may fail.
    let listener = TcpListener::bind(listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let options = ServeOptions {
        format: options.format,
        compression: options.compression,
        level: options.level,
        may_run: options.may_run,
        cache: options.cache.clone(),
    };
    let server = ImageServer::open(offers, &options, &output.events_of(0)).await?;
    let mut lines = String::new();
    for image in server.images() {
        for name in &image.names {
            output.inform(&format!("docker pull {address}/{name}"));
            lines.push_str(&format!("{address}/{}@{}\n", name.repository, image.digest));
        }
    }
    output.inform(match until_pulled {
        UntilPulled::No => "serving until Ctrl-C",
        UntilPulled::Yes => "serving until one pull is complete",
    });
    result::print(lines.as_bytes(), &mut io::stdout().lock())
        .map_err(|error| Error::Failed(format!("cannot write to standard output: {error}")))?;
    match until_pulled {
        UntilPulled::No => server.serve(listener, std::future::pending()).await,
        UntilPulled::Yes => server.serve(listener, server.pulled()).await,
    }
    Ok(())
}

/// `--until-pulled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UntilPulled {
    /// Serve until a signal arrives.
    No,
    /// Serve until one pull is complete.
    Yes,
}
