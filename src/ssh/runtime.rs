//! The runtimes on a machine: a table of their commands, and the script that runs these commands
//! there.
//!
//! Most runtimes load an archive without the layers that they list. Some need the blobs of all
//! layers, and cannot list blobs. They pull through a port that the connection forwards to a
//! registry in this program, because then they know which blobs they need.

use super::options::{Options, RuntimeName};
use crate::image::{Reference, short_repository};

/// What a runtime lists. This decides how its layers are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// The diff IDs of each image, one JSON list on each line. Docker's graph drivers know a layer
    /// only together with all layers below it.
    Chains,
    /// The same list, but a layer is known in any position.
    DiffIds,
    /// The same, and in any form: the runtime pulls.
    AnyForm,
    /// The digests of blobs, one on each line.
    Blobs,
}

/// The format of the archive that a runtime can load with layers left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveForm {
    /// As `docker save` writes it.
    Docker,
    /// A tar of an OCI layout.
    Oci,
}

/// How a runtime pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullCommands {
    /// Pulls `$P`. `$x` is the platform, or nothing.
    pull: &'static str,
    /// Gives the pulled image the name `$w`.
    tag: &'static str,
    /// Removes the name `$P`.
    untag: &'static str,
}

/// A runtime, and the commands for it. `$S` is `sudo` or nothing, `$W` limits the time of a command,
/// `$N` is the options that choose containerd's namespace, `$T` the image's names.
///
/// No command has a `'`, a `\`, a `!` or a line break: the script is one quoted word for the login
/// shell there, which may be any.
pub struct Runtime {
    /// Its key in the script.
    key: &'static str,
    pub name: RuntimeName,
    /// Its name on the command line.
    pub word: &'static str,
    /// The program that must exist.
    program: &'static str,
    /// Succeeds if the runtime answers.
    check: &'static str,
    /// Lists its layers.
    list: &'static str,
    pub lists: ListKind,
    /// For a runtime that pulls missing layers. An archive for it contains all layers.
    pub pull: Option<PullCommands>,
    pub form: ArchiveForm,
    /// Loads an uncompressed archive from standard input.
    load: &'static str,
    /// For a runtime that takes only one name from an archive: gives `$1` the name `$w`.
    tag: Option<&'static str>,
    /// Prints the ID of the image `$1`, if the runtime has one. Fails if the image does not exist.
    id: &'static str,
    /// Whether `--runtime auto` may choose it.
    is_automatic: bool,
}

/// containerd with its own client.
const CTR: Runtime = Runtime {
    key: "ctr",
    name: RuntimeName::Ctr,
    word: "ctr",
    program: "ctr",
    check: "$W $S ctr --connect-timeout 5s version",
    list: "$S ctr $N content ls -q",
    lists: ListKind::Blobs,
    pull: None,
    form: ArchiveForm::Oci,
    load: "$S ctr $N images import -",
    tag: None,
    id: "true",
    is_automatic: true,
};

/// Docker with its containerd store. It cannot list blobs.
const DOCKER_CONTAINERD: Runtime = Runtime {
    key: "docker-containerd",
    name: RuntimeName::Docker,
    word: "docker",
    program: "docker",
    check: "$W $S docker info --format \"{{.DriverStatus}}\" | grep containerd.snapshotter",
    // Listing all images is slow here. Images with the same name are enough, if there are any.
    list: "m=${T%% *}; m=$($S docker image ls -q --no-trunc ${m%:*} | head -n 3); \
           [ -n \"$m\" ] || m=$($S docker image ls -q --no-trunc); [ -z \"$m\" ] || \
           $S docker image inspect --format \"{{json .RootFS.Layers}}\" $(echo \"$m\" | sort -u)",
    lists: ListKind::AnyForm,
    pull: Some(PullCommands {
        pull: "$S docker pull -q ${x:+--platform $x} $P",
        tag: "$S docker tag $P $w",
        untag: "$S docker rmi $P",
    }),
    form: ArchiveForm::Oci,
    load: "$S docker load",
    tag: None,
    id: "$S docker image inspect --format \"{{.Id}}\" $1",
    is_automatic: true,
};

/// In the order in which `--runtime auto` tries them.
pub const RUNTIMES: [Runtime; 7] = [
    DOCKER_CONTAINERD,
    Runtime {
        key: "docker",
        check: "m=$($W $S docker version 2>&1) || { echo \"$m\"; false; } && case $m in \
                *[Pp]odman*) echo \"docker is podman there: use --runtime podman\"; false;; esac",
        list: "$S docker image ls -q --no-trunc | sort -u | \
               xargs -r $S docker image inspect --format \"{{json .RootFS.Layers}}\"",
        lists: ListKind::Chains,
        pull: None,
        form: ArchiveForm::Docker,
        ..DOCKER_CONTAINERD
    },
    Runtime {
        key: "podman",
        name: RuntimeName::Podman,
        word: "podman",
        program: "podman",
        check: "$W $S podman version",
        list: "$S podman image ls -q --no-trunc | sort -u | \
               xargs -r $S podman image inspect --format \"{{json .RootFS.Layers}}\"",
        lists: ListKind::DiffIds,
        pull: None,
        form: ArchiveForm::Oci,
        load: "$S podman load",
        tag: Some("$S podman tag $1 $w"),
        id: "$S podman image inspect --format \"sha256:{{.Id}}\" $1",
        is_automatic: true,
    },
    Runtime {
        key: "k3s",
        name: RuntimeName::K3s,
        word: "k3s",
        program: "k3s",
        check: "$W $S k3s ctr version",
        list: "$S k3s ctr $N content ls -q",
        load: "$S k3s ctr $N images import -",
        ..CTR
    },
    Runtime {
        key: "nerdctl",
        name: RuntimeName::Nerdctl,
        word: "nerdctl",
        program: "nerdctl",
        check: "$W $S nerdctl version",
        list: "$S nerdctl $N image ls -q --no-trunc | sort -u | \
               xargs -r $S nerdctl $N image inspect --format \"{{json .RootFS.Layers}}\"",
        lists: ListKind::AnyForm,
        pull: Some(PullCommands {
            pull: "$S nerdctl $N --insecure-registry pull -q ${x:+--platform $x} $P",
            tag: "$S nerdctl $N tag $P $w",
            untag: "$S nerdctl $N rmi $P",
        }),
        load: "$S nerdctl $N load",
        ..CTR
    },
    CTR,
    Runtime {
        key: "crictl",
        name: RuntimeName::Crictl,
        word: "crictl",
        is_automatic: false,
        ..CTR
    },
];

impl Runtime {
    pub fn by_word(word: &str) -> Option<&'static Self> {
        RUNTIMES.iter().find(|runtime| runtime.word == word)
    }

    /// The runtime with this key in the script.
    pub fn by_key(key: &str) -> Option<&'static Self> {
        RUNTIMES.iter().find(|runtime| runtime.key == key)
    }

    /// The usual name of an image in this runtime. Docker and podman leave out the default
    /// registry; containerd uses full names.
    pub fn name_of(&self, image: &Reference, tag: &str) -> String {
        match (self.name, short_repository(image)) {
            (RuntimeName::Docker, Some(short)) => format!("{short}:{tag}"),
            // podman gives this name to an image that was built or loaded under a short name.
            (RuntimeName::Podman, Some(short)) => format!("localhost/{short}:{tag}"),
            _ => format!("{}/{}:{tag}", image.registry(), image.repository()),
        }
    }

    /// The names of the image in an archive.
    pub fn names_in_archive(&self, image: &Reference, tags: &[String]) -> Vec<String> {
        let (registry, repository) = (image.registry(), image.repository());
        let names = tags.iter().map(|tag| match (self.name, self.form) {
            // Docker's containerd store takes a name unchanged, and finds only full names.
            (RuntimeName::Docker, ArchiveForm::Oci) => format!("{registry}/{repository}:{tag}"),
            _ => self.name_of(image, tag),
        });
        names.take(if self.tag.is_some() { 1 } else { usize::MAX }).collect()
    }

    /// The default namespace for its images.
    fn namespace(&self) -> Option<&'static str> {
        matches!(self.name, RuntimeName::K3s | RuntimeName::Crictl).then_some("k8s.io")
    }
}

/// Lists the parts of archives that earlier connections have left: file name and length. `$D` is a
/// folder only for them. A `pushimg` that runs on the machine has its cache in another folder.
///
/// A name without a dot belongs to an archive that can be resumed. While a connection writes a
/// file, its name also has dots and numbers. If it was not written to for a minute, it is no longer
/// in use.
const LIST_KEPT: &str = "\
    D=\"${XDG_CACHE_HOME:-$HOME/.cache}/pushimg-incoming\"; \
    find \"$D\" -type f -mmin +1440 -exec rm -f {} + 2>/dev/null; \
    for f in $(cd \"$D\" 2>/dev/null && { ls | grep -v [.]; \
    find . -type f -name \"*.*\" -mmin +1; }); do \
    echo \"pushimg:kept ${f##*/} $(wc -c <\"$D/$f\")\"; done; \
    for z in gzip zstd; do command -v $z >/dev/null 2>&1 && echo pushimg:encoding $z; done; ";

/// After the line `load ENCODING KEY NUMBER [KEPT LENGTH]`, reads frames into the file `$f`.
///
/// Kept bytes are copied, because a connection that seems dead may still write to their file. A
/// connection ends if its file was taken away. `$t` is a folder that is deleted later, so no other
/// command may set it. At the end, `$n` is 0 if the archive is complete, `unkept` if it could not be
/// written, and `damaged` if the kept bytes do not have their checksum.
const RECEIVE: &str = "\
    umask 077; t=; n=; s=; \
    mkdir -p \"$D\" 2>/dev/null; if [ -w \"$D\" ] && [ -d \"$D\" ]; then :; else \
    t=$(mktemp -d) && D=$t || n=unkept; fi; f=\"$D/$k.$$.$x\"; \
    if [ -n \"$n\" ]; then :; elif [ -n \"$o\" ]; then \
    head -c \"$l\" \"$D/$o\" >\"$f\" && [ $(wc -c <\"$f\") -eq \"$l\" ] && rm -f \"$D/$o\" \
    || n=unkept; else : >\"$f\" || n=unkept; fi; \
    while [ -z \"$n\" ] && read -r n s && [ \"$n\" -gt 0 ] 2>/dev/null && [ -e \"$f\" ]; do \
    if m=$(dd bs=\"$n\" count=1 iflag=fullblock 2>&1 >>\"$f\"); then n=; else \
    echo \"$m\" >&2; n=unkept; fi; done; \
    if [ \"$n\" = 0 ] && [ -n \"$s\" ]; then m=$(head -c \"${s#* }\" \"$f\" | cksum); \
    [ \"$(echo $m)\" = \"$s\" ] || n=damaged; fi; ";

/// Sets `$W`, which ends a command that does not answer. Some machines have no `timeout`, or an old
/// one with other arguments.
const TIME_LIMIT: &str = "timeout 1 true >/dev/null 2>&1 && W=\"timeout 20\"; ";

/// Reports that the machine's `dd` cannot read frames.
const CHECK_DD: &str =
    "dd iflag=fullblock count=0 </dev/null >/dev/null 2>&1 || echo pushimg:nodd; ";

/// Keeps an incomplete archive if it is big enough.
const KEEP: &str = "\
    case \"$n\" in 0|drop) rm -f \"$f\";; \
    damaged|unkept) rm -f \"$f\"; echo pushimg:$n;; \
    *) if [ $(wc -c <\"$f\") -lt 8388608 ]; then rm -f \"$f\"; \
    else mv \"$f\" \"$D/$k\"; fi;; esac; [ -z \"$t\" ] || rm -rf \"$t\"";

/// The command line for the machine. It finds the runtime, lists its layers, and waits for a line
/// on standard input: `pull PORT DIGEST [PLATFORM]`, or `load …` and an archive. Lines that begin
/// with `pushimg:` are for this program.
///
/// `found` is the runtime that an earlier connection found. Then its list is not needed again.
pub fn script(
    options: &Options,
    image: &Reference,
    tags: &[String],
    found: Option<&Runtime>,
) -> String {
    let sudo = if options.sudo { "sudo -n" } else { "" };
    let mut script = format!(
        "S=\"{sudo}\"; W=; {TIME_LIMIT}echo pushimg:begin; echo \"pushimg:machine $(uname -m)\"; r=; c=; "
    );
    let wanted = |runtime: &&Runtime| match (found, options.runtime) {
        (Some(found), _) => runtime.key == found.key,
        (None, Some(name)) => runtime.name == name,
        (None, None) => runtime.is_automatic,
    };
    for Runtime { key, program, check, .. } in RUNTIMES.iter().filter(wanted) {
        let check = if found.is_some() { "true" } else { check };
        script += &format!(
            "if [ -z \"$r\" ] && command -v {program} >/dev/null 2>&1; then \
             if e=$({{ {check}; }} 2>&1 </dev/null); then r={key}; \
             else echo pushimg:failed {key}; echo \"$e\" | tail -n 5; fi; fi; "
        );
    }
    script += "if [ -z \"$r\" ]; then echo pushimg:none; exit 3; fi; echo pushimg:runtime $r; \
               case $r in ";
    let (mut loading, mut pulling, mut ids) = (String::new(), String::new(), String::new());
    for runtime in RUNTIMES.iter().filter(wanted) {
        let Runtime { key, list, pull, load, tag, id, .. } = runtime;
        let namespace = options.namespace.as_deref().or(runtime.namespace());
        let namespace = namespace.map_or(String::new(), |name| format!("-n {name}"));
        let names: Vec<_> = tags.iter().map(|tag| runtime.name_of(image, tag)).collect();
        let names = names.join(" ");
        let list = if found.is_some() { "true" } else { list };
        script += &format!(
            "{key}) N=\"{namespace}\"; T=\"{names}\"; \
             {{ {list}; }} 2>&1 </dev/null || echo pushimg:unlisted;; "
        );
        if let Some(PullCommands { pull, tag, untag }) = pull {
            pulling += &format!(
                "{key}) {pull} 1>&2 </dev/null; c=$?; \
                 for w in $T; do [ $c -ne 0 ] || {{ {tag} 1>&2 </dev/null; c=$?; }}; done; \
                 {untag} >/dev/null 2>&1 </dev/null;; "
            );
        }
        let tag = tag.map_or(String::new(), |tag| {
            format!("; for w in $T; do [ $c -ne 0 ] || {{ {tag} 1>&2 </dev/null; c=$?; }}; done")
        });
        loading += &format!("{key}) set -- $T; $z <\"$f\" | {load} 1>&2; c=$?{tag};; ");
        ids += &format!("{key}) {id};; ");
    }
    script += "esac; ";
    script += LIST_KEPT;
    script += CHECK_DD;
    script += "echo pushimg:ready; read -r go e k x o l; case $go in pull) ";
    // The name contains the digest, so even if another program listens on the port, only the right
    // image can be pulled.
    let repository = image.repository();
    script += &format!("P=\"127.0.0.1:$e/{repository}@$k\"; case $r in {pulling}esac;; ");
    script += "load) ";
    script += RECEIVE;
    script += "if [ \"$n\" = 0 ]; then case $e in gzip) z=\"gzip -dc\";; zstd) z=\"zstd -dcq\";; \
               *) z=cat;; esac; ";
    script += &format!("case $r in {loading}esac; fi; ");
    script += KEEP;
    script += ";; esac; set -- $T; ";
    // A pulled image has the digest in its name, so its ID is not needed.
    script += &format!(
        "if [ \"$go\" = load ] && [ \"$c\" = 0 ]; then \
         i=$(case $r in {ids}esac </dev/null) || c=$?; fi; "
    );
    script += "[ -z \"$c\" ] || { echo \"pushimg:id $i\"; echo pushimg:status $c; }";
    // `env` is not a builtin or an alias in any shell, so every login shell can run it.
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
            let script = script(&options, &image, &["v1".to_owned(), "v2".to_owned()], None);
            assert_eq!(script.matches('\'').count(), 2, "{script}");
            assert!(!script.contains(['\\', '!', '\n']), "{script}");
            // `$t` is deleted, so only these commands may set it.
            let others = script.replace("umask 077; t=; n=; s=;", "").replace("t=$(mktemp -d)", "");
            assert!(!others.contains(" t=") && !others.contains("for t "), "{script}");
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
