//! What a token must allow: a set of resources with actions.
//!
//! The text form is `repository:<name>:<action>,<action>`, sorted, so that equal sets have equal
//! texts (distribution's "Token Scope Documentation").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How many scopes of a challenge are added; more are skipped.
const MAX_CHALLENGED: usize = 32;

/// A set of resources, each with the actions wanted on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scopes {
    /// By `type:name`.
    actions: BTreeMap<String, BTreeSet<String>>,
}

impl Scopes {
    /// The scopes for reading from a repository.
    pub fn pull(repository: &str) -> Self {
        Self::default().with(&format!("repository:{repository}"), ["pull"])
    }

    /// The scopes for reading from and writing to a repository.
    pub fn push(repository: &str) -> Self {
        Self::default().with(&format!("repository:{repository}"), ["pull", "push"])
    }

    /// These scopes and reading from another repository, from which a blob is mounted.
    #[must_use]
    pub fn with_pull(self, repository: &str) -> Self {
        self.with(&format!("repository:{repository}"), ["pull"])
    }

    /// These scopes and those in a challenge's `scope`. Malformed scopes are skipped.
    #[must_use]
    pub fn with_challenged(self, scope: &str) -> Self {
        scope
            .split_ascii_whitespace()
            .take(MAX_CHALLENGED)
            // A name may hold colons (`host:5000/name`); type and actions hold none.
            .filter_map(|one| one.rsplit_once(':'))
            .filter(|(resource, actions)| {
                !actions.is_empty()
                    && matches!(resource.split_once(':'), Some((kind, name)) if !kind.is_empty() && !name.is_empty())
            })
            .fold(self, |scopes, (resource, actions)| {
                scopes.with(resource, actions.split(',').filter(|action| !action.is_empty()))
            })
    }

    /// Whether a token with these scopes can be used where `needed` is required.
    pub fn contains(&self, needed: &Self) -> bool {
        needed.actions.iter().all(|(resource, actions)| {
            self.actions
                .get(resource)
                .is_some_and(|ours| ours.contains("*") || ours.is_superset(actions))
        })
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Each scope as text, sorted.
    pub fn iter(&self) -> impl Iterator<Item = String> {
        self.actions.iter().map(|(resource, actions)| {
            let actions: Vec<_> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }

    fn with<'a>(mut self, resource: &str, actions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut actions = actions.into_iter().map(str::to_owned).peekable();
        if actions.peek().is_some() {
            self.actions.entry(resource.to_owned()).or_default().extend(actions);
        }
        self
    }
}

/// All scopes, separated by spaces.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(&scope)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_always_the_same_text() {
        let one = Scopes::push("b/app").with_pull("a/base").with_pull("b/app");
        let other = Scopes::pull("a/base").with_challenged("repository:b/app:push,pull");
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "repository:a/base:pull repository:b/app:pull,push");
        assert_eq!(Scopes::default().to_string(), "");
    }

    #[test]
    fn a_wider_set_contains_a_narrower_one_only() {
        let wide = Scopes::push("app").with_pull("base");
        assert!(wide.contains(&Scopes::push("app")));
        assert!(wide.contains(&Scopes::pull("app")));
        assert!(wide.contains(&Scopes::pull("base")));
        assert!(wide.contains(&Scopes::default()));
        assert!(!wide.contains(&Scopes::push("base")));
        assert!(!wide.contains(&Scopes::pull("app/sub")));
        assert!(!Scopes::pull("app").contains(&wide));
        let all = Scopes::default().with_challenged("repository:app:*");
        assert!(all.contains(&Scopes::push("app")));
    }

    #[test]
    fn a_challenge_adds_to_the_set_and_nonsense_adds_nothing() {
        assert_eq!(
            Scopes::pull("app")
                .with_challenged(
                    "  registry:catalog:*  repository:host:5000/x:pull repository:app:push "
                )
                .to_string(),
            "registry:catalog:* repository:app:pull,push repository:host:5000/x:pull"
        );
        assert_eq!(
            Scopes::pull("app").with_challenged("x x: :x x:y x:y: ::: repository::pull a:b:,, "),
            Scopes::pull("app")
        );
    }
}
