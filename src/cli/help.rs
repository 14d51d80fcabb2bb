//! The text that `--help` adds to `-h`. The man pages and `docs/usage.md` contain the same
//! sections.

/// A part of the help, with a heading.
pub struct Section {
    pub title: &'static str,
    pub body: Body,
}

/// The text of a [`Section`].
pub enum Body {
    /// Command lines.
    Commands(&'static [&'static str]),
    /// A paragraph.
    Paragraph(&'static str),
    /// Names and what they mean.
    Table(&'static [(&'static str, &'static str)]),
}

use Body::{Commands, Paragraph, Table};

/// The sections for `pushimg`.
pub const PUSH: &[Section] = &[
    Section {
        title: "Examples",
        body: Commands(&[
            "pushimg result registry.fly.io/app:latest",
            "pushimg result                        # to the name that the image carries",
            "pushimg --dry-run result ghcr.io/me/app",
            "pushimg result ghcr.io/me/app:v2 -t latest --digest-file digest.txt",
            "docker save app | pushimg - registry.example.com/team/app:v1",
            "pushimg result registry.fly.io/app | xargs -r fly deploy --image",
            "pushimg result-a=registry.fly.io/a:v1 result-b=registry.fly.io/b:v1",
            "pushimg --index ghcr.io/me/app:v2 amd64=result-amd64 arm64=result-arm64",
            "pushimg result ssh://me@web1/app:v1   # into Docker or podman there",
            "pushimg inspect result --against registry.fly.io/app:latest",
        ]),
    },
    Section {
        title: "List of images, for --file",
        body: Commands(&[
            "[{\"image\": \"result-a\", \"destination\": \"r.io/a:v1\", \"tags\": [\"latest\"]}, ...]",
        ]),
    },
    Section {
        title: "Result",
        body: Paragraph(
            "Standard output gets one line, registry/repository@sha256:..., for each image that \
             was pushed, or one JSON document with --json. With --dry-run alone it gets nothing. \
             Everything else goes to standard error.",
        ),
    },
    Section {
        title: "Exit codes",
        body: Table(&[
            ("0", "success"),
            ("1", "another failure, such as a full disk"),
            ("2", "wrong usage"),
            ("3", "the image cannot be read, or is not what it claims to be"),
            ("4", "the registry refused: credentials, permission, name"),
            ("5", "the network or the registry failed, after retries"),
            ("130", "interrupted; the message says whether a tag may have changed"),
        ]),
    },
    Section {
        title: "Environment",
        body: Table(&[
            ("REGISTRY_AUTH_FILE", "file with credentials, read after --auth-file"),
            ("DOCKER_AUTH_CONFIG", "the content of such a file"),
            ("DOCKER_CONFIG", "folder of Docker's config.json, else ~/.docker"),
            ("FLY_ACCESS_TOKEN, FLY_API_TOKEN", "credentials for registry.fly.io"),
            ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "proxies, and hosts that need none"),
            ("SSL_CERT_FILE, SSL_CERT_DIR", "trusted certificates, in place of the system's"),
            ("PUSHIMG_SSH", "the program that connects to ssh:// destinations, like --ssh"),
            ("TMPDIR", "folder for compressed layers that wait for their upload"),
            ("XDG_CACHE_HOME", "folder of the cache, else ~/.cache"),
            ("NO_COLOR, CLICOLOR=0", "no colours"),
            ("CI, TERM=dumb", "plain lines in place of progress bars"),
        ]),
    },
];

/// The sections for `pushimg inspect`.
pub const INSPECT: &[Section] = &[
    Section {
        title: "Examples",
        body: Commands(&[
            "pushimg inspect result",
            "pushimg inspect images.tar --image v1",
            "pushimg inspect result --json | jq '.images[0].layers[].store_paths'",
            "pushimg inspect result --against registry.fly.io/app:latest",
            "pushimg inspect registry.fly.io/app:latest",
        ]),
    },
    Section {
        title: "Result",
        body: Paragraph(
            "If no file has the name that is given, and it begins with a host, the image is read \
             from that registry, without its layers. Standard output gets a table, or one JSON document with --json. Nothing is uploaded. \
             Exit codes and environment variables are those of pushimg.",
        ),
    },
];

/// The sections for `pushimg diff`.
pub const DIFF: &[Section] = &[
    Section {
        title: "Examples",
        body: Commands(&[
            "pushimg diff registry.fly.io/app:latest result",
            "pushimg diff registry.fly.io/app:1.0 registry.fly.io/app:1.1 --json",
        ]),
    },
    Section {
        title: "Result",
        body: Paragraph(
            "Standard output gets the layers that only one image has, with - for OLD and + for \
             NEW, and then the packages of the Nix store that came, went, changed their version or \
             were rebuilt. Exit codes and environment variables are those of pushimg.",
        ),
    },
];

/// The sections for `pushimg tag`.
pub const TAG: &[Section] = &[
    Section {
        title: "Examples",
        body: Commands(&[
            "pushimg tag registry.fly.io/app:v2 latest",
            "pushimg tag ghcr.io/me/app:build-7 v1.2 v1 latest",
        ]),
    },
    Section {
        title: "Result",
        body: Paragraph(
            "Only the manifest is read and sent. Standard output gets one line, \
             registry/repository@sha256:..., or one JSON document with --json. Exit codes and \
             environment variables are those of pushimg.",
        ),
    },
];

/// The sections for `pushimg serve`.
pub const SERVE: &[Section] = &[
    Section {
        title: "Examples",
        body: Commands(&[
            "pushimg serve result",
            "pushimg serve result=app:v2 other.tar --listen 127.0.0.1:5001",
            "pushimg serve result --until-pulled",
        ]),
    },
    Section {
        title: "Result",
        body: Paragraph(
            "A read-only registry over local images. Standard error gets the command that pulls \
             each image, and a line for each blob that goes out; standard output gets one line, \
             address/repository@sha256:..., for each name. It ends with Ctrl-C (exit code 130), or \
             with --until-pulled when an image was pulled (exit code 0).",
        ),
    },
];

/// The sections for `pushimg login`.
pub const LOGIN: &[Section] = &[
    Section {
        title: "Examples",
        body: Commands(&[
            "pushimg login ghcr.io --username me",
            "echo \"$TOKEN\" | pushimg login ghcr.io -u me --password-stdin",
            "FLY_API_TOKEN=... pushimg login registry.fly.io",
        ]),
    },
    Section {
        title: "Result",
        body: Paragraph(
            "The login is kept where docker, podman and skopeo find it: in the file of --auth-file, \
             $REGISTRY_AUTH_FILE or $DOCKER_CONFIG/config.json, else in ~/.docker/config.json, or \
             in the credential helper that this file names. If the registry refuses the login, \
             nothing is kept, and the exit code is 4.",
        ),
    },
];

/// The sections for `pushimg logout`.
pub const LOGOUT: &[Section] =
    &[Section { title: "Examples", body: Commands(&["pushimg logout ghcr.io"]) }];

/// The sections for `pushimg completions`.
pub const COMPLETIONS: &[Section] = &[Section {
    title: "Examples",
    body: Commands(&[
        "pushimg completions bash > ~/.local/share/bash-completion/completions/pushimg",
        "pushimg completions zsh > ~/.zfunc/_pushimg    # with ~/.zfunc in fpath",
        "pushimg completions fish > ~/.config/fish/completions/pushimg.fish",
    ]),
}];

/// The sections for `pushimg man`.
pub const MAN: &[Section] =
    &[Section { title: "Examples", body: Commands(&["pushimg man ~/.local/share/man/man1"]) }];

/// The sections for the command of this name.
pub fn sections(command: &str) -> &'static [Section] {
    match command {
        "pushimg" => PUSH,
        "inspect" => INSPECT,
        "diff" => DIFF,
        "tag" => TAG,
        "serve" => SERVE,
        "login" => LOGIN,
        "logout" => LOGOUT,
        "completions" => COMPLETIONS,
        "man" => MAN,
        _ => &[],
    }
}

/// The width of the help's text.
const COLUMNS: usize = 80;
/// The longest name in a table; a longer one is on a line of its own.
const LONGEST_NAME: usize = 27;

/// The sections as `--help` prints them.
pub fn text(sections: &[Section]) -> String {
    sections.iter().map(section_text).collect::<Vec<_>>().join("\n\n")
}

fn section_text(section: &Section) -> String {
    let mut lines = vec![format!("{}:", section.title)];
    match section.body {
        Commands(commands) => lines.extend(commands.iter().map(|line| format!("  {line}"))),
        Paragraph(text) => {
            lines.extend(wrap(text, COLUMNS - 2).into_iter().map(|line| format!("  {line}")));
        }
        Table(rows) => {
            let lengths = rows.iter().map(|(name, _)| name.len());
            let name_columns = lengths.filter(|len| *len <= LONGEST_NAME).max().unwrap_or(0);
            for (name, meaning) in rows {
                let mut name = *name;
                if name.len() > name_columns {
                    lines.push(format!("  {name}"));
                    name = "";
                }
                for line in wrap(meaning, COLUMNS - name_columns - 4) {
                    lines.push(format!("  {name:name_columns$}  {line}"));
                    name = "";
                }
            }
        }
    }
    lines.join("\n")
}

/// Wraps a text into lines. A line is longer than `columns` only if it is a single word.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_fit_a_terminal_of_eighty_columns() {
        for section in
            [PUSH, INSPECT, DIFF, TAG, SERVE, LOGIN, LOGOUT, COMPLETIONS, MAN].into_iter().flatten()
        {
            let text = section_text(section);
            assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        }
    }

    #[test]
    fn tables_are_aligned_and_long_names_stand_alone() {
        let section = Section {
            title: "Things",
            body: Table(&[
                ("a", "one"),
                ("A_NAME_THAT_IS_LONGER_THAN_27", "two"),
                ("bcd", "three"),
            ]),
        };
        assert_eq!(
            section_text(&section),
            "Things:\n  a    one\n  A_NAME_THAT_IS_LONGER_THAN_27\n       two\n  bcd  three"
        );
    }
}
