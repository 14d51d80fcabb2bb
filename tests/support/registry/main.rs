//! The development registry as a program: prints `listening on 127.0.0.1:PORT` and serves until it
//! is killed. `cargo run --example registry -- --port 0 [--storage DIR] [--basic USER:PASSWORD]
//! [--bearer USER:PASSWORD]`

// The library half serves the tests too, and this program uses a part of it.
#![allow(dead_code, missing_docs)]

#[path = "mod.rs"]
mod registry;
#[path = "../served.rs"]
mod served;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// A registry on loopback, for development only.
#[derive(Parser)]
struct Args {
    /// Port on 127.0.0.1; 0 is any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Folder for blobs; a temporary one by default.
    #[arg(long)]
    storage: Option<PathBuf>,
    /// Asks for this login by Basic auth.
    #[arg(long, value_name = "USER:PASSWORD", conflicts_with = "bearer")]
    basic: Option<String>,
    /// Asks for a token, which this login gets.
    #[arg(long, value_name = "USER:PASSWORD")]
    bearer: Option<String>,
    /// Seconds a token is good for.
    #[arg(long, default_value_t = 300)]
    token_lifetime: u64,
    /// A repository that exists (repeatable); any, if none is given.
    #[arg(long, value_name = "NAME")]
    repository: Vec<String>,
    /// Answers every mount with an upload session.
    #[arg(long)]
    refuse_mounts: bool,
    /// Keeps no account of referrers, as registries before distribution-spec 1.1.
    #[arg(long)]
    no_referrers: bool,
    /// Refuses to overwrite a tag, as ECR does where tags are immutable.
    #[arg(long)]
    immutable_tags: bool,
}

fn login(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, ""))
}

fn main() {
    let args = Args::parse();
    let auth = if let Some(text) = &args.basic {
        let (user, password) = login(text);
        registry::basic(user, password)
    } else if let Some(text) = &args.bearer {
        let (user, password) = login(text);
        registry::bearer(user, password, Duration::from_secs(args.token_lifetime))
    } else {
        registry::auth::Auth::Anonymous
    };
    let registry = registry::DevRegistry::start(registry::Options {
        port: args.port,
        auth,
        repositories: (!args.repository.is_empty()).then_some(args.repository),
        mounts: !args.refuse_mounts,
        referrers: !args.no_referrers,
        tags: if args.immutable_tags {
            registry::Tags::ImmutableAsEcr
        } else {
            registry::Tags::Mutable
        },
        storage: args.storage,
    });
    println!("listening on {}", registry.addr());
    // A script waits for this line through a pipe.
    let _ = std::io::stdout().flush();
    registry.wait();
}
