//! Resolves each name once for all connections that are opened at the same time.
//!
//! A hundred connections may need the same name at the same moment. The system's resolver would use
//! a thread for each of them and read its files each time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How long an answer is used. It is short, because a registry behind a load balancer changes its
/// addresses.
const KEEP: Duration = Duration::from_secs(10);

type DnsAnswer = Result<Vec<SocketAddr>, Arc<std::io::Error>>;
type PendingLookup = Shared<BoxFuture<'static, DnsAnswer>>;

/// The system's resolver with a short cache.
#[derive(Clone, Default)]
pub struct Resolver(Arc<Mutex<HashMap<String, (Instant, PendingLookup)>>>);

impl Resolver {
    fn lookup(&self, name: &str) -> PendingLookup {
        let mut asked = self.0.lock();
        if let Some((since, answer)) = asked.get(name)
            && since.elapsed() < KEEP
            && !matches!(answer.peek(), Some(Err(_)))
        {
            return answer.clone();
        }
        let host = name.to_owned();
        let answer = async move {
            let found = tokio::net::lookup_host((host.as_str(), 0)).await.map_err(Arc::new)?;
            Ok(found.collect())
        };
        let answer: PendingLookup = answer.boxed().shared();
        asked.insert(name.to_owned(), (Instant::now(), answer.clone()));
        answer
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let answer = self.lookup(name.as_str());
        async move {
            let found = answer.await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        }
        .boxed()
    }
}
