//! What can be done with the runtimes of a machine: a table of commands, and the script that runs
//! them there.

use super::options::{Options, RuntimeName};
use crate::image::Reference;

/// What a runtime's list of what it has is, and so which layers need not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Each image's diff IDs, as a JSON list in a line. Docker's graph drivers know a layer only
    /// together with those below it.
    Chains,
    /// The same. podman finds a layer by its diff ID, wherever it is.
    DiffIds,
    /// The digests of blobs, one a line. containerd finds a blob by its digest.
    Blobs,
}

/// The form of the archive that a runtime takes with layers left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// As `docker save` writes it.
    Docker,
    /// A tar of an OCI layout.
    Oci,
}

/// A runtime, and the commands for it. `$S` is `sudo` or nothing, `$N` the options that choose
/// containerd's namespace, `$T` the image's name.
///
/// No command has a `'`, a `\`, a `!` or a line break: the script is one quoted word for the login
/// shell there, which may be any.
pub struct Runtime {
    pub name: RuntimeName,
    /// How users write it.
    pub word: &'static str,
    /// The program that must be there.
    program: &'static str,
    /// Succeeds if the runtime answers.
    check: &'static str,
    /// Lists what it has.
    list: &'static str,
    pub known: Known,
    pub form: ArchiveForm,
    /// Reads an archive, which is not compressed, from standard input.
    load: &'static str,
    /// Prints the id of the image, where the runtime tells one.
    id: &'static str,
    /// Whether `auto` may choose it.
    is_automatic: bool,
}

/// containerd by its own client.
const CTR: Runtime = Runtime {
    name: RuntimeName::Ctr,
    word: "ctr",
    program: "ctr",
    check: "$S ctr --connect-timeout 5s version",
    list: "$S ctr $N content ls -q",
    known: Known::Blobs,
    form: ArchiveForm::Oci,
    load: "$S ctr $N images import -",
    id: "true",
    is_automatic: true,
};

/// In the order in which `auto` tries them.
pub const RUNTIMES: [Runtime; 6] = [
    Runtime {
        name: RuntimeName::Docker,
        word: "docker",
        program: "docker",
        check: "$S docker version",
        // Docker's containerd store takes no archive with layers left out.
        list: "if $S docker info --format \"{{.DriverStatus}}\" | grep -q containerd.snapshotter; \
               then echo pushimg:whole; else $S docker image ls -q --no-trunc | sort -u | \
               xargs -r $S docker image inspect --format \"{{json .RootFS.Layers}}\"; fi",
        known: Known::Chains,
        form: ArchiveForm::Docker,
        load: "$S docker load",
        id: "$S docker image inspect --format \"{{.Id}}\" $T",
        is_automatic: true,
    },
    Runtime {
        name: RuntimeName::Podman,
        word: "podman",
        program: "podman",
        check: "$S podman version",
        list: "$S podman image ls -q --no-trunc | sort -u | \
               xargs -r $S podman image inspect --format \"{{json .RootFS.Layers}}\"",
        known: Known::DiffIds,
        form: ArchiveForm::Oci,
        load: "$S podman load",
        id: "$S podman image inspect --format \"sha256:{{.Id}}\" $T",
        is_automatic: true,
    },
    Runtime {
        name: RuntimeName::K3s,
        word: "k3s",
        program: "k3s",
        check: "$S k3s ctr version",
        list: "$S k3s ctr $N content ls -q",
        known: Known::Blobs,
        form: ArchiveForm::Oci,
        load: "$S k3s ctr $N images import -",
        id: "true",
        is_automatic: true,
    },
    Runtime {
        name: RuntimeName::Nerdctl,
        word: "nerdctl",
        program: "nerdctl",
        check: "$S nerdctl version",
        // It has no command that lists blobs.
        list: "echo pushimg:whole",
        known: Known::Blobs,
        form: ArchiveForm::Oci,
        load: "$S nerdctl $N load",
        id: "true",
        is_automatic: true,
    },
    CTR,
    Runtime { name: RuntimeName::Crictl, word: "crictl", is_automatic: false, ..CTR },
];

impl Runtime {
    pub fn by_word(word: &str) -> Option<&'static Self> {
        RUNTIMES.iter().find(|runtime| runtime.word == word)
    }

    /// The name that the runtime's users give an image. Docker and podman leave out what is the
    /// default; containerd has whole names.
    pub fn name_of(&self, image: &Reference, tag: &str) -> String {
        let (registry, repository) = (image.registry(), image.repository());
        let short = match registry {
            "docker.io" => repository.strip_prefix("library/").unwrap_or(repository),
            _ => "",
        };
        match self.name {
            RuntimeName::Docker if !short.is_empty() => format!("{short}:{tag}"),
            // What podman calls an image that it built or loaded under a short name.
            RuntimeName::Podman if !short.is_empty() => format!("localhost/{short}:{tag}"),
            _ => format!("{registry}/{repository}:{tag}"),
        }
    }

    /// The namespace that it puts images into unless told otherwise.
    fn namespace(&self) -> Option<&'static str> {
        matches!(self.name, RuntimeName::K3s | RuntimeName::Crictl).then_some("k8s.io")
    }
}

/// Lists what earlier connections left of archives: its name and length. `$D` is the folder for that,
/// and for nothing else: the cache of a `pushimg` that runs there has another one.
///
/// A name without a dot is that of an archive. While a connection writes to it, the name has dots
/// and numbers besides; one that was not written to for a minute is no longer in use.
const LIST_KEPT: &str = "\
    D=\"${XDG_CACHE_HOME:-$HOME/.cache}/pushimg-incoming\"; \
    find \"$D\" -type f -mmin +1440 -exec rm -f {} + 2>/dev/null; \
    for f in $(cd \"$D\" 2>/dev/null && { ls | grep -v [.]; \
    find . -type f -name \"*.*\" -mmin +1; }); do \
    echo \"pushimg:kept ${f##*/} $(wc -c <\"$D/$f\")\"; done; \
    for z in gzip zstd; do command -v $z >/dev/null 2>&1 && echo pushimg:encoding $z; done; ";

/// Waits for the line `load ENCODING KEY NUMBER [KEPT LENGTH]`, and reads frames into the file `$f`.
///
/// What is kept is copied, because a connection that seems dead may still write to it. One whose file
/// was taken ends. At the end, `$n` is 0 if the archive is whole, and `unkept` if it could not be
/// written.
const RECEIVE: &str = "\
    read -r go e k x o l; [ \"$go\" = load ] || exit 0; umask 077; t=; n=; \
    mkdir -p \"$D\" 2>/dev/null; if [ -w \"$D\" ] && [ -d \"$D\" ]; then :; else \
    t=$(mktemp -d); D=$t; k=once; fi; f=\"$D/$k.$$.$x\"; \
    if [ -n \"$o\" ]; then head -c \"$l\" \"$D/$o\" >\"$f\" && [ $(wc -c <\"$f\") -eq \"$l\" ] \
    && rm -f \"$D/$o\" || n=unkept; else : >\"$f\" || n=unkept; fi; \
    while [ -z \"$n\" ] && read -r n && [ \"$n\" -gt 0 ] 2>/dev/null && [ -e \"$f\" ]; do \
    if m=$(dd bs=\"$n\" count=1 iflag=fullblock 2>&1 >>\"$f\"); then n=; else \
    echo \"$m\" >&2; n=unkept; fi; done; ";

/// Keeps what has arrived of an archive that is not whole, if it is worth it. KEY is `once` for one
/// that cannot be sent a second time.
const KEEP: &str = "\
    case \"$n\" in 0|drop) rm -f \"$f\";; unkept) rm -f \"$f\"; echo pushimg:unkept;; \
    *) if [ \"$k\" = once ] || [ $(wc -c <\"$f\") -lt 8388608 ]; then rm -f \"$f\"; \
    else mv \"$f\" \"$D/$k\"; fi;; esac; [ -z \"$t\" ] || rm -rf \"$t\"; ";

/// The command line for the machine: it finds the runtime, lists what that has, and waits for an
/// archive on its standard input. Lines that begin with `pushimg:` are for this program.
pub fn script(options: &Options, image: &Reference, tag: &str) -> String {
    let sudo = if options.sudo { "sudo -n" } else { "" };
    let mut script =
        format!("S=\"{sudo}\"; echo pushimg:begin; echo \"pushimg:machine $(uname -m)\"; r=; c=; ");
    let wanted = |runtime: &&Runtime| match options.runtime {
        Some(name) => runtime.name == name,
        None => runtime.is_automatic,
    };
    for Runtime { word, program, check, .. } in RUNTIMES.iter().filter(wanted) {
        script += &format!(
            "if [ -z \"$r\" ] && command -v {program} >/dev/null 2>&1; then \
             if e=$({check} 2>&1 </dev/null); then r={word}; \
             else echo pushimg:failed {word}; echo \"$e\" | tail -n 5; fi; fi; "
        );
    }
    script += "if [ -z \"$r\" ]; then echo pushimg:none; exit 3; fi; echo pushimg:runtime $r; \
               case $r in ";
    let mut loading = String::new();
    for runtime in RUNTIMES.iter().filter(wanted) {
        let Runtime { word, list, load, id, .. } = runtime;
        let namespace = options.namespace.as_deref().or(runtime.namespace());
        let namespace = namespace.map_or(String::new(), |name| format!("-n {name}"));
        let name = runtime.name_of(image, tag);
        script += &format!(
            "{word}) N=\"{namespace}\"; T=\"{name}\"; {{ {list}; }} 2>&1 </dev/null || \
             echo pushimg:unlisted;; "
        );
        loading += &format!(
            "{word}) $z <\"$f\" | {load} 1>&2; c=$?; \
             [ $c -ne 0 ] || i=$({id} </dev/null);; "
        );
    }
    script += "esac; ";
    script += LIST_KEPT;
    script += "echo pushimg:ready; ";
    script += RECEIVE;
    script += "if [ \"$n\" = 0 ]; then \
               case $e in gzip) z=\"gzip -dc\";; zstd) z=\"zstd -dcq\";; *) z=cat;; esac; case $r in ";
    script += &loading;
    script += "esac; fi; ";
    script += KEEP;
    script += "[ -z \"$c\" ] || { echo \"pushimg:id $i\"; echo pushimg:status $c; }";
    // `env` is no shell's builtin or alias, and every login shell runs it.
    format!("env LC_ALL=C sh -c '{script}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::parse_reference;

    #[test]
    fn the_script_is_one_word_for_any_shell() {
        let image = parse_reference("r.io/team/app:v1").unwrap();
        for runtime in RUNTIMES.iter().map(|runtime| Some(runtime.name)).chain([None]) {
            let namespace = Some("mine".to_owned());
            let options = Options { runtime, sudo: true, namespace, ..Options::default() };
            let script = script(&options, &image, "v1");
            assert_eq!(script.matches('\'').count(), 2, "{script}");
            assert!(!script.contains(['\\', '!', '\n']), "{script}");
            let inner = script.split('\'').nth(1).unwrap();
            let checked = std::process::Command::new("sh").args(["-n", "-c", inner]).output();
            assert!(checked.unwrap().status.success(), "{script}");
        }
    }

    #[test]
    fn a_name_is_what_the_runtimes_users_call_it() {
        let name = |word: &str, text: &str| {
            Runtime::by_word(word).unwrap().name_of(&parse_reference(text).unwrap(), "v1")
        };
        assert_eq!(name("docker", "app"), "app:v1");
        assert_eq!(name("docker", "me/app"), "me/app:v1");
        assert_eq!(name("podman", "app"), "localhost/app:v1");
        assert_eq!(name("ctr", "app"), "docker.io/library/app:v1");
        for word in ["docker", "podman", "ctr"] {
            assert_eq!(name(word, "r.io/me/app"), "r.io/me/app:v1");
        }
    }
}
