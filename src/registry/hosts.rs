//! What is known about particular registries: one row for each; the first matching row is used.
//!
//! For a registry's name as the user wrote it, this module returns the host of its API, how to log
//! in, and how to create a repository.

use super::auth::{Environment, Secret, fly};

/// One registry, or one kind of registry.
struct HostRow {
    /// Whether a host belongs to this row; the name is in lower case.
    is: fn(&str) -> bool,
    /// The host of the API, if it is not the host in image names.
    api: Option<&'static str>,
    /// How to log in with only a token, if no user name is needed.
    token_login: Option<TokenLogin>,
    /// How to log in. `{host}` is the registry, `{label N}` the Nth part of its name, from 0.
    log_in: &'static str,
    /// How to create a repository. `{repository}` is its name, `{part 1}` the second part of it.
    create: &'static str,
    /// The registry answers a push to a missing repository with 404 or 403, without the code
    /// `NAME_UNKNOWN`.
    permission: &'static str,
    /// The registry answers 404 or 403 to a push to a repository that must be created first,
    /// without saying so by the code `NAME_UNKNOWN`.
    says_not_found: bool,
}

/// An environment variable, and the token in it.
pub type NamedToken<'a> = (&'static str, Option<&'a Secret>);

/// The login for a registry that needs only a token.
pub struct TokenLogin {
    /// The user name that is sent with every token.
    pub username: &'static str,
    /// The password in a token. The form of the token depends on where the user got it. `None` if
    /// it contains no password.
    pub password: fn(&Secret) -> Option<Secret>,
    /// The tokens in the environment with their variables, the most important first.
    pub tokens: fn(&Environment) -> [NamedToken<'_>; 2],
}

impl TokenLogin {
    /// The user name and the password from the environment.
    pub fn find(&self, environment: &Environment) -> Option<(String, Secret)> {
        let tokens = (self.tokens)(environment);
        let password = tokens.into_iter().find_map(|(_, token)| (self.password)(token?))?;
        Some((self.username.to_owned(), password))
    }
}

const OTHERS: HostRow = HostRow {
    is: |_| true,
    api: None,
    token_login: None,
    log_in: "log in with `pushimg login {host}`, or give --username with --password-stdin",
    create: "create the repository {repository} there, or check its name",
    permission: "ask its owner for that right, or log in as another user",
    says_not_found: false,
};

const ROWS: &[HostRow] = &[
    HostRow {
        is: |host| host == "registry.fly.io",
        token_login: Some(TokenLogin {
            username: "x",
            password: fly::password,
            tokens: |environment| {
                [
                    ("$FLY_ACCESS_TOKEN", environment.fly_access_token.as_ref()),
                    ("$FLY_API_TOKEN", environment.fly_api_token.as_ref()),
                ]
            },
        }),
        log_in: "log in with `fly auth docker`, or set FLY_API_TOKEN; if the app does not exist \
                 yet, make it with `fly apps create`",
        create: "fly.io has no such app, or it is not yours; create it: \
                 fly apps create {repository}",
        says_not_found: true,
        ..OTHERS
    },
    // The registry of an account: <account>.dkr.ecr.<region>.amazonaws.com.
    HostRow {
        is: |host| host.contains(".dkr.ecr.") && host.contains(".amazonaws.com"),
        log_in: "log in with `aws ecr get-login-password --region {label 3} | pushimg login \
                 --username AWS --password-stdin {host}` (it lasts 12 hours)",
        create: "ECR creates no repositories by itself; create it: \
                 aws ecr create-repository --repository-name {repository}",
        ..OTHERS
    },
    HostRow {
        is: |host| host == "public.ecr.aws",
        log_in: "log in with `aws ecr-public get-login-password --region us-east-1 | pushimg login \
                 --username AWS --password-stdin {host}` (it lasts 12 hours)",
        ..OTHERS
    },
    HostRow {
        is: |host| host == "ghcr.io",
        log_in: "log in with `pushimg login {host}`, or give --username with --password-stdin; the \
                 password is a token with the scope write:packages (in GitHub Actions, \
                 GITHUB_TOKEN with the permission `packages: write`)",
        ..OTHERS
    },
    HostRow {
        is: |host| host.ends_with(".pkg.dev") || host == "gcr.io" || host.ends_with(".gcr.io"),
        log_in: "log in with `gcloud auth configure-docker {host}`, or give --username \
                 oauth2accesstoken with --password-stdin and `gcloud auth print-access-token`",
        create: "create the repository: \
                 gcloud artifacts repositories create {part 1} --repository-format=docker",
        ..OTHERS
    },
    // GitLab's own registry, and within a GitLab CI job the registry of that GitLab.
    HostRow {
        is: |host| host == "registry.gitlab.com" || is_gitlab_ci(host),
        log_in: "log in with `pushimg login {host}`, or give --username with --password-stdin; in \
                 GitLab CI, pipe \"$CI_REGISTRY_PASSWORD\" into pushimg --username \
                 \"$CI_REGISTRY_USER\" --password-stdin, or CI_JOB_TOKEN for the user \
                 gitlab-ci-token; elsewhere the password is a token with the scopes read_registry \
                 and write_registry",
        permission: "in GitLab CI, CI_JOB_TOKEN may push to the registry of its own project only; \
                     elsewhere a token with the scope write_registry, of a user with the role \
                     Developer, is needed",
        ..OTHERS
    },
    HostRow {
        is: |host| host.ends_with(".azurecr.io"),
        log_in: "log in with `az acr login --name {label 0}`, or give --username with \
                 --password-stdin",
        ..OTHERS
    },
    HostRow {
        is: |host| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io"),
        api: Some("registry-1.docker.io"),
        log_in: "log in with `pushimg login docker.io`, or give --username with --password-stdin; the \
                 password is best an access token with the permission Read & Write",
        ..OTHERS
    },
    OTHERS,
];

/// Whether this process runs in a GitLab CI job, and this is the registry of that GitLab.
fn is_gitlab_ci(host: &str) -> bool {
    std::env::var("CI_REGISTRY").is_ok_and(|registry| registry.eq_ignore_ascii_case(host))
}

fn row(host: &str) -> &'static HostRow {
    let name = host.to_ascii_lowercase();
    ROWS.iter().find(|row| (row.is)(&name)).unwrap_or(&OTHERS)
}

/// The host that serves the registry's API.
pub(super) fn api_host(host: &str) -> &str {
    row(host).api.unwrap_or(host)
}

/// How to log in with only a token, if the registry supports it.
pub fn token_login(host: &str) -> Option<&'static TokenLogin> {
    row(host).token_login.as_ref()
}

/// How to log in to a registry.
pub(super) fn log_in(host: &str) -> String {
    let name = host.to_ascii_lowercase();
    let label = |n: usize| name.split('.').nth(n).unwrap_or_default();
    let advice = row(host).log_in.replace("{host}", host);
    advice.replace("{label 0}", label(0)).replace("{label 3}", label(3))
}

/// How to log in, if this registry has its own way.
pub(super) fn own_log_in(host: &str) -> Option<String> {
    (row(host).log_in != OTHERS.log_in).then(|| log_in(host))
}

/// How to create a repository at a registry.
pub(super) fn create(host: &str, repository: &str) -> String {
    let part = repository.split('/').nth(1).unwrap_or(repository);
    row(host).create.replace("{repository}", repository).replace("{part 1}", part)
}

/// How a user gets the right to push to a repository.
pub(super) fn permission(host: &str, repository: &str) -> String {
    row(host).permission.replace("{repository}", repository)
}

/// The hint for a registry that accepts no pushes: what it may be, and where to push instead.
pub(super) fn read_only(host: &str) -> String {
    format!(
        "{host} takes no pushes here: it may be read-only, or a mirror (pull-through cache) of \
         another registry; push to that one"
    )
}

/// Whether any 404 of this registry means that the repository must be created first.
pub(super) fn says_not_found(host: &str) -> bool {
    row(host).says_not_found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registry_has_its_command() {
        for (host, command) in [
            ("registry.fly.io", "`fly auth docker`"),
            (
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
                "`aws ecr get-login-password --region eu-central-1 | pushimg login --username AWS \
                 --password-stdin 123456789012.dkr.ecr.eu-central-1.amazonaws.com`",
            ),
            ("public.ecr.aws", "aws ecr-public"),
            ("ghcr.io", "write:packages"),
            ("europe-docker.pkg.dev", "configure-docker europe-docker.pkg.dev`"),
            ("registry.gitlab.com", "--username \"$CI_REGISTRY_USER\" --password-stdin"),
            ("registry.gitlab.com", "CI_JOB_TOKEN"),
            ("team.azurecr.io", "`az acr login --name team`"),
            ("docker.io", "`pushimg login docker.io`"),
            ("127.0.0.1:5000", "`pushimg login 127.0.0.1:5000`"),
            ("ghcr.io.evil.test", "`pushimg login ghcr.io.evil.test`"),
        ] {
            let advice = log_in(host);
            assert!(advice.contains(command), "{advice}");
            assert!(!advice.contains('{'), "{advice}");
        }
    }

    #[test]
    fn repositories_are_created_by_the_registrys_own_tool() {
        for (host, repository, command) in [
            ("registry.fly.io", "app", "fly apps create app"),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "a/b", "--repository-name a/b"),
            ("eu.pkg.dev", "project/repo/app", "repositories create repo "),
            ("h.example", "app", "create the repository app there"),
        ] {
            let advice = create(host, repository);
            assert!(advice.contains(command) && !advice.contains('{'), "{advice}");
        }
        assert_eq!(api_host("docker.io"), "registry-1.docker.io");
        assert_eq!(api_host("h.example:5000"), "h.example:5000");
    }
}
