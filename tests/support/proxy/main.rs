//! The proxy as a program for benchmarks: it slows down the line to a registry and counts what
//! passes. It prints `listening on 127.0.0.1:PORT`. For each line on stdin it prints a JSON line
//! with the counts since the last one: `{"requests", "body_bytes", "connections"}`. It ends when
//! stdin ends. `cargo run --example proxy -- --upstream 127.0.0.1:5000 [--rtt MS] [--mbit N]`

// The laboratory serves the tests too, and this program uses a part of it.
#![allow(dead_code, unused_imports, missing_docs)]

#[path = "mod.rs"]
mod proxy;
#[path = "../registry/mod.rs"]
mod registry;
#[path = "../served.rs"]
mod served;
#[path = "../tls.rs"]
mod tls;

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;

/// A slow line to a registry on loopback that counts.
#[derive(Parser)]
struct Args {
    /// The registry's address, without TLS.
    #[arg(long)]
    upstream: SocketAddr,
    /// Round trip time in milliseconds.
    #[arg(long, default_value_t = 0)]
    rtt: u64,
    /// Mbit/s each direction, shared by all connections; as fast as it goes by default.
    #[arg(long)]
    mbit: Option<u64>,
}

fn main() {
    let args = Args::parse();
    let proxy = proxy::FaultProxy::start(
        args.upstream,
        &proxy::ProxyOptions {
            line: proxy::Line {
                rtt: Duration::from_millis(args.rtt),
                bits_per_second: args.mbit.map(|mbit| mbit * 1_000_000),
            },
            ..Default::default()
        },
    );
    let say = |line: String| {
        println!("{line}");
        // The reader waits for this line.
        let _ = std::io::stdout().flush();
    };
    say(format!("listening on {}", proxy.addr()));
    let mut connections = 0;
    for _ in std::io::stdin().lock().lines() {
        let counts = serde_json::json!({
            "requests": proxy.count(|_| true),
            "body_bytes": proxy.body_bytes(|_| true),
            "connections": proxy.connections() - connections,
        });
        connections = proxy.connections();
        proxy.clear();
        say(counts.to_string());
    }
}
