//! Layers looked for at the registry, as soon as it is known which will come: a reader that waits
//! for one after another would make a round trip, or several, of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use tokio::sync::OnceCell;

use super::ship::Shipping;
use super::together::Wanted;
use crate::error::Error;
use crate::image::{Blob, DiffId, LayerKey};
use crate::registry::upload::Session;
use crate::report::Outcome;
use crate::reuse::Lookup;

/// What was found of each layer that was looked for.
#[derive(Default)]
pub struct Lookups(Mutex<HashMap<DiffId, Arc<OnceCell<Found>>>>);

struct Found {
    there: Option<(Blob, Outcome)>,
    /// What a mount left open, for the first who needs it.
    session: Mutex<Option<Session>>,
}

impl Lookups {
    /// Looks for all these layers now.
    pub async fn ahead(&self, shipping: &Shipping<'_>, diff_ids: &[DiffId], keys: &[LayerKey]) {
        let of_keys = keys.iter().map(async |key| {
            if let Some(diff_id) = shipping.reuse.diff_id_of(key).await {
                self.look(shipping, &diff_id).await;
            }
        });
        let known = diff_ids.iter().map(|diff_id| self.look(shipping, diff_id));
        tokio::join!(join_all(of_keys), join_all(known));
    }

    /// What fails is asked again, and told, when the layer comes.
    async fn look(&self, shipping: &Shipping<'_>, diff_id: &DiffId) {
        let cell = self.cell(diff_id);
        let _ = cell.get_or_try_init(|| find(shipping, diff_id)).await;
    }

    /// What was found of a layer, now or before.
    pub async fn find(&self, shipping: &Shipping<'_>, diff_id: &DiffId) -> Result<Lookup, Error> {
        let cell = self.cell(diff_id);
        let found = cell.get_or_try_init(|| find(shipping, diff_id)).await?;
        Ok(match &found.there {
            Some((blob, outcome)) => Lookup::There { blob: blob.clone(), outcome: outcome.clone() },
            None => {
                // An Option is whole at any time.
                let mut session = found.session.lock().unwrap_or_else(PoisonError::into_inner);
                Lookup::Missing { session: session.take() }
            }
        })
    }

    fn cell(&self, diff_id: &DiffId) -> Arc<OnceCell<Found>> {
        // A map is whole between any two of its operations.
        let mut cells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cells.entry(diff_id.clone()).or_default().clone()
    }
}

async fn find(shipping: &Shipping<'_>, diff_id: &DiffId) -> Result<Found, Error> {
    let mut lookup = shipping.reuse.find(diff_id).await?;
    if let Lookup::Missing { session } = lookup {
        // Another image of this run may have found it elsewhere.
        let wanted = Wanted::Layer(diff_id.clone());
        lookup = match shipping.together.known(&wanted).filter(|_| shipping.trust.is_full()) {
            Some(known) => shipping.bring(&known.blob, session).await?,
            None => Lookup::Missing { session },
        };
    }
    Ok(match lookup {
        Lookup::There { blob, outcome } => {
            let outcome = shipping.settled(&blob, outcome);
            shipping.together.found(diff_id, &blob, shipping.repository);
            Found { there: Some((blob, outcome)), session: Mutex::default() }
        }
        Lookup::Missing { session } => Found { there: None, session: Mutex::new(session) },
    })
}
