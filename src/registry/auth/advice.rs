//! How one logs in to a registry: the last words of a message about a refused credential.
//!
//! Each row is a registry whose way differs from `docker login HOST`.

/// Whose registry it is, told by the host's name.
struct Row {
    is: fn(&str) -> bool,
    /// `{host}` is the registry, `{label N}` the Nth part of its name, from 0.
    advice: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        is: |host| host == "registry.fly.io",
        advice: "log in with `fly auth docker`, or set FLY_API_TOKEN; if the app does not exist \
                 yet, make it with `fly apps create`",
    },
    // An account's registry: <account>.dkr.ecr.<region>.amazonaws.com.
    Row {
        is: |host| host.contains(".dkr.ecr.") && host.contains(".amazonaws.com"),
        advice: "log in with `aws ecr get-login-password --region {label 3} | docker login \
                 --username AWS --password-stdin {host}` (it lasts 12 hours)",
    },
    Row {
        is: |host| host == "public.ecr.aws",
        advice: "log in with `aws ecr-public get-login-password --region us-east-1 | docker login \
                 --username AWS --password-stdin {host}` (it lasts 12 hours)",
    },
    Row {
        is: |host| host == "ghcr.io",
        advice: "log in with `docker login {host}`, or give --username with --password-stdin; the \
                 password is a token with the scope write:packages (in GitHub Actions, GITHUB_TOKEN \
                 with the permission `packages: write`)",
    },
    Row {
        is: |host| host.ends_with(".pkg.dev") || host == "gcr.io" || host.ends_with(".gcr.io"),
        advice: "log in with `gcloud auth configure-docker {host}`, or give --username \
                 oauth2accesstoken with --password-stdin and `gcloud auth print-access-token`",
    },
    Row {
        is: |host| host.ends_with(".azurecr.io"),
        advice: "log in with `az acr login --name {label 0}`, or give --username with \
                 --password-stdin",
    },
    Row {
        is: |host| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io"),
        advice: "log in with `docker login`, or give --username with --password-stdin; the \
                 password is best an access token with the permission Read & Write",
    },
];

const OTHERS: &str = "log in with `docker login {host}`, or give --username with --password-stdin";

/// What to do to be let in by `host`, which is named as the user wrote it.
pub(in crate::registry) fn log_in(host: &str) -> String {
    let name = host.to_ascii_lowercase();
    let advice = ROWS.iter().find(|row| (row.is)(&name)).map_or(OTHERS, |row| row.advice);
    let label = |n: usize| name.split('.').nth(n).unwrap_or_default();
    advice.replace("{host}", host).replace("{label 0}", label(0)).replace("{label 3}", label(3))
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
                "`aws ecr get-login-password --region eu-central-1 | docker login --username AWS \
                 --password-stdin 123456789012.dkr.ecr.eu-central-1.amazonaws.com`",
            ),
            ("public.ecr.aws", "aws ecr-public"),
            ("ghcr.io", "write:packages"),
            ("europe-docker.pkg.dev", "configure-docker europe-docker.pkg.dev`"),
            ("team.azurecr.io", "`az acr login --name team`"),
            ("docker.io", "`docker login`"),
            ("127.0.0.1:5000", "`docker login 127.0.0.1:5000`"),
            ("ghcr.io.evil.test", "`docker login ghcr.io.evil.test`"),
        ] {
            let advice = log_in(host);
            assert!(advice.contains(command), "{advice}");
            assert!(!advice.contains('{'), "{advice}");
        }
    }
}
