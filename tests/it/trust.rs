//! Server certificates as people make them with `openssl`: which ones pushimg accepts, wherever
//! they are configured, and how it explains why it refuses the others.

use std::path::{Path, PathBuf};

use crate::support::archive::{ImageBuilder, Layer};
use crate::support::run::{Output, Pushimg, program};
use crate::support::tls::Identity;
use crate::support::*;
use tempfile::TempDir;

/// Certificates that `openssl` makes, in a folder of their own.
struct OpenSsl(TempDir);

const FOR_LOOPBACK: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost";

impl OpenSsl {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder for certificates"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &str) {
        let folder = format!("{}/", self.0.path().display());
        program("openssl", arguments.split_whitespace().map(|word| word.replace("@", &folder)));
    }

    fn identity(&self, name: &str) -> Identity {
        let file = |end: &str| self.path(&format!("{name}.{end}"));
        Identity { cert: file("crt"), key: file("key") }
    }

    /// `openssl req -x509`: a self-signed certificate, CA:TRUE by default. `key` are the options
    /// that say which key; `more` may add extensions.
    fn self_signed(&self, name: &str, key: &str, more: &str) -> Identity {
        self.run(&format!(
            "req -x509 -nodes {key} -keyout @{name}.key -out @{name}.crt -days 30 \
             -subj /CN={name} {more}"
        ));
        self.identity(name)
    }

    /// A certificate signed by `authority`, with these lines of extensions.
    fn signed(&self, name: &str, authority: &str, key: &str, extensions: &str) -> Identity {
        self.signed_with("-sha512", name, authority, key, extensions)
    }

    /// The same with this hash function.
    fn signed_with(
        &self,
        hash: &str,
        name: &str,
        authority: &str,
        key: &str,
        extensions: &str,
    ) -> Identity {
        std::fs::write(self.path("extensions"), extensions).expect("write extensions");
        self.run(&format!(
            "req -new -nodes {key} -keyout @{name}.key -out @{name}.csr -subj /CN={name}"
        ));
        self.run(&format!(
            "x509 -req -in @{name}.csr -CA @{authority}.crt -CAkey @{authority}.key \
             -CAcreateserial {hash} -days 30 -extfile @extensions -out @{name}.crt"
        ));
        self.identity(name)
    }

    /// A self-signed certificate that is valid from and to these times (`20200101000000Z`).
    fn dated(&self, name: &str, from: &str, to: &str) -> Identity {
        let folder = self.0.path().display();
        let config = format!(
            "[ca]\ndefault_ca=c\n[c]\ndatabase={folder}/index\nnew_certs_dir={folder}\n\
             serial={folder}/serial\ndefault_md=sha256\npolicy=p\nx509_extensions=x\n\
             [p]\ncommonName=supplied\n[x]\nbasicConstraints=CA:TRUE\n{FOR_LOOPBACK}\n"
        );
        std::fs::write(self.path("ca.cnf"), config).expect("write ca.cnf");
        std::fs::write(self.path("index"), "").expect("write index");
        std::fs::write(self.path("serial"), "01\n").expect("write serial");
        self.run(&format!(
            "req -new -nodes -newkey rsa:2048 -keyout @{name}.key -out @{name}.csr -subj /CN={name}"
        ));
        self.run(&format!(
            "ca -batch -notext -selfsign -config @ca.cnf -keyfile @{name}.key -in @{name}.csr \
             -startdate {from} -enddate {to} -out @{name}.crt"
        ));
        self.identity(name)
    }
}

const RSA: &str = "-newkey rsa:2048";

fn curve(name: &str) -> String {
    format!("-newkey ec -pkeyopt ec_paramgen_curve:{name}")
}

fn with_extension(extension: &str) -> String {
    format!("-addext {extension}")
}

fn serving(certificate: &Identity) -> DockerRegistry {
    DockerRegistry::start(&DockerRegistryOptions {
        certificate: Some(certificate),
        ..Default::default()
    })
}

fn image(dir: &TempDir) -> PathBuf {
    ImageBuilder::new(vec![Layer::file("b", b"b")]).write(dir.path(), "image.tar")
}

fn push(machine: &Pushimg, image: &Path, registry: &DockerRegistry, more: &[&str]) -> Output {
    let mut args = vec![image.display().to_string(), format!("{}/app:v1", registry.host())];
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    machine.run(args)
}

fn with_ca_file(image: &Path, registry: &DockerRegistry, file: &Path) -> Output {
    push(&Pushimg::new(), image, registry, &["--ca-file", file.to_str().expect("UTF-8")])
}

#[test]
fn a_certificate_that_is_itself_trusted_is_accepted_wherever_it_is_named() {
    let (dir, openssl) = (TempDir::new().expect("a folder"), OpenSsl::new());
    let image = image(&dir);
    openssl.self_signed("authority", RSA, "");
    for certificate in [
        openssl.self_signed("self-signed", RSA, &with_extension(FOR_LOOPBACK)),
        openssl.signed("leaf", "authority", RSA, FOR_LOOPBACK),
    ] {
        let registry = serving(&certificate);
        let file = &certificate.cert;
        push(&Pushimg::new(), &image, &registry, &[]).exits(5).says("--ca-file");
        with_ca_file(&image, &registry, file).success();

        let machine = Pushimg::new();
        let folder = machine.home().join(".config/containers/certs.d").join(registry.host());
        std::fs::create_dir_all(&folder).expect("certs.d");
        std::fs::copy(file, folder.join("registry.crt")).expect("registry.crt");
        push(&machine, &image, &registry, &[]).success();

        for variable in ["SSL_CERT_FILE", "NIX_SSL_CERT_FILE"] {
            push(&Pushimg::new().env(variable, file), &image, &registry, &[]).success();
        }
        let folder = TempDir::new().expect("a folder");
        std::fs::copy(file, folder.path().join("any.pem")).expect("any.pem");
        let machine = Pushimg::new().env("SSL_CERT_DIR", folder.path());
        push(&machine, &image, &registry, &[]).success();
    }
}

#[test]
fn keys_and_signatures_that_openssl_takes_are_taken() {
    let (dir, openssl) = (TempDir::new().expect("a folder"), OpenSsl::new());
    let image = image(&dir);
    for name in ["P-256", "P-384", "P-521"] {
        let key = curve(name);
        let certificate = openssl.self_signed(name, &key, &with_extension(FOR_LOOPBACK));
        let registry = serving(&certificate);
        with_ca_file(&image, &registry, &certificate.cert).success();

        let authority = openssl.self_signed(&format!("{name}-ca"), &key, "");
        let leaf = format!("{name}-leaf");
        let certificate = openssl.signed(&leaf, &format!("{name}-ca"), &key, FOR_LOOPBACK);
        let registry = serving(&certificate);
        with_ca_file(&image, &registry, &authority.cert).success();
    }
    let certificate = openssl.self_signed("ed", "-newkey ed25519", &with_extension(FOR_LOOPBACK));
    with_ca_file(&image, &serving(&certificate), &certificate.cert).success();
}

#[test]
fn a_server_certificate_that_says_it_is_an_authority_is_accepted_from_a_trusted_one() {
    let (dir, openssl) = (TempDir::new().expect("a folder"), OpenSsl::new());
    let image = image(&dir);
    let authority = openssl.self_signed("authority", RSA, "");
    let another = OpenSsl::new();
    let impostor = another.self_signed("authority", RSA, "");
    let extensions = format!("basicConstraints=CA:TRUE\n{FOR_LOOPBACK}");
    let certificate = openssl.signed("leaf", "authority", RSA, &extensions);
    let registry = serving(&certificate);
    with_ca_file(&image, &registry, &authority.cert).success();
    // An authority of the same name, with another key.
    with_ca_file(&image, &registry, &impostor.cert).exits(5).says("--ca-file");
    push(&Pushimg::new(), &image, &registry, &[]).exits(5).says("not trusted here");
}

#[test]
fn a_certificate_that_is_refused_is_refused_in_words() {
    let (dir, openssl) = (TempDir::new().expect("a folder"), OpenSsl::new());
    let image = image(&dir);
    let clock = "check the clock of this machine";
    let other_names = "subjectAltName=DNS:registry.example,IP:10.1.2.3";
    let authority = openssl.self_signed("authority", RSA, "");
    for (certificate, trusted, said, hint) in [
        (
            openssl.dated("expired", "20200101000000Z", "20210203040506Z"),
            None,
            "its certificate expired on 2021-02-03T04:05:06Z",
            clock,
        ),
        (
            openssl.dated("early", "20900101000000Z", "20910101000000Z"),
            None,
            "its certificate is not valid before 2090-01-01T00:00:00Z",
            clock,
        ),
        (
            openssl.self_signed("elsewhere", RSA, &with_extension(other_names)),
            None,
            "its certificate is for registry.example, 10.1.2.3, not for 127.0.0.1",
            "subjectAltName=IP:127.0.0.1",
        ),
        (
            openssl.signed("elsewhere", "authority", RSA, other_names),
            Some(&authority.cert),
            "its certificate is for registry.example, 10.1.2.3, not for 127.0.0.1",
            "subjectAltName=IP:127.0.0.1",
        ),
        (
            openssl.self_signed("common-name", RSA, ""),
            None,
            "its certificate names no host at all, so not 127.0.0.1",
            "a common name (CN) does not count",
        ),
        (
            openssl.signed(
                "client",
                "authority",
                RSA,
                &format!("extendedKeyUsage=clientAuth\n{FOR_LOOPBACK}"),
            ),
            Some(&authority.cert),
            "its certificate is not one for servers",
            "the registry needs a certificate for servers",
        ),
    ] {
        let registry = serving(&certificate);
        let output = with_ca_file(&image, &registry, trusted.unwrap_or(&certificate.cert));
        let output = output.exits(5).says(said).says(hint);
        assert!(output.took.as_secs() < 8, "{output}");
        for jargon in ["UnixTime", "InvalidCertificate", "Context", "webpki", "DnsName"] {
            assert!(!output.stderr.contains(jargon), "{output}");
        }
        push(&Pushimg::new(), &image, &registry, &["--insecure-skip-tls-verify"]).success();
    }
    let self_signed = openssl.self_signed("unknown", RSA, &with_extension(FOR_LOOPBACK));
    push(&Pushimg::new(), &image, &serving(&self_signed), &[])
        .exits(5)
        .says("its certificate is self-signed and not among the trusted ones")
        .says("--ca-file");
    let issued = openssl.signed("issued", "authority", RSA, FOR_LOOPBACK);
    push(&Pushimg::new(), &image, &serving(&issued), &[])
        .exits(5)
        .says("its certificate was issued by an authority that is not trusted here")
        .says("--ca-file");
}

#[test]
fn variables_that_name_no_certificates_are_told_where_trust_is_missing() {
    let (dir, openssl) = (TempDir::new().expect("a folder"), OpenSsl::new());
    let image = image(&dir);
    let certificate = openssl.self_signed("self-signed", RSA, &with_extension(FOR_LOOPBACK));
    let registry = serving(&certificate);
    let empty_file = dir.path().join("empty.pem");
    std::fs::write(&empty_file, "").expect("write empty.pem");
    let empty_folder = dir.path().join("empty");
    std::fs::create_dir(&empty_folder).expect("a folder");
    let missing = dir.path().join("missing.pem");
    for (variable, value, problem) in [
        ("SSL_CERT_FILE", &missing, "does not exist"),
        ("NIX_SSL_CERT_FILE", &missing, "does not exist"),
        ("SSL_CERT_FILE", &empty_file, "holds no certificate"),
        ("SSL_CERT_FILE", &empty_folder, "is a folder"),
        ("SSL_CERT_DIR", &empty_folder, "holds no certificate"),
        ("SSL_CERT_DIR", &missing, "does not exist"),
        ("SSL_CERT_DIR", &empty_file, "is not a folder"),
    ] {
        let machine = Pushimg::new().env(variable, value);
        let said = format!("{variable} names {}, which {problem}", value.display());
        push(&machine, &image, &registry, &[]).exits(5).says(&said);
        let file = certificate.cert.to_str().expect("UTF-8");
        push(&machine, &image, &registry, &["--ca-file", file]).success();
    }
    // Each of the variables can name the certificate, whatever the other one names.
    let other = openssl.self_signed("other", RSA, &with_extension(FOR_LOOPBACK));
    for (one, two) in [(&certificate, &other), (&other, &certificate)] {
        let machine =
            Pushimg::new().env("SSL_CERT_FILE", &one.cert).env("NIX_SSL_CERT_FILE", &two.cert);
        push(&machine, &image, &registry, &[]).success();
    }
    // nix-shell --pure sets both to a file that does not exist.
    let machine = Pushimg::new()
        .env("SSL_CERT_FILE", "/no-cert-file.crt")
        .env("NIX_SSL_CERT_FILE", &certificate.cert);
    push(&machine, &image, &registry, &[]).success();
    let machine = Pushimg::new()
        .env("SSL_CERT_FILE", &certificate.cert)
        .env("NIX_SSL_CERT_FILE", "/no-cert-file.crt");
    push(&machine, &image, &registry, &[]).success();
    let machine = Pushimg::new().env("SSL_CERT_FILE", "/no-cert-file.crt");
    push(&machine, &image, &registry, &[]).exits(5).never_says("no-cert-file");
}

#[test]
fn a_key_or_a_signature_that_is_too_weak_is_named() {
    let (dir, openssl) = (TempDir::new().expect("a folder"), OpenSsl::new());
    let image = image(&dir);
    const SHORT: &str = "-newkey rsa:1024";
    let authority = openssl.self_signed("authority", RSA, "");
    let weak = openssl.self_signed("weak-authority", SHORT, "");
    let own = openssl.self_signed("short", SHORT, &with_extension(FOR_LOOPBACK));
    let bits = "has an RSA key of 1024 bits, and at least 2048 are needed";
    for (certificate, trusted, said) in [
        (&own, &own, format!("its certificate {bits}")),
        (
            &openssl.signed("short-leaf", "authority", SHORT, FOR_LOOPBACK),
            &authority,
            format!("its certificate {bits}"),
        ),
        (
            &openssl.signed("leaf", "weak-authority", RSA, FOR_LOOPBACK),
            &weak,
            format!("the certificate of its authority {bits}"),
        ),
        (
            &openssl.signed_with("-sha1", "sha1", "authority", RSA, FOR_LOOPBACK),
            &authority,
            "its certificate is signed with SHA-1".to_owned(),
        ),
    ] {
        let registry = serving(certificate);
        with_ca_file(&image, &registry, &trusted.cert)
            .exits(5)
            .says(&said)
            .says("the registry needs another certificate");
        push(&Pushimg::new(), &image, &registry, &["--insecure-skip-tls-verify"]).success();
    }
}

#[test]
fn names_that_do_not_fit_are_not_all_listed() {
    let (dir, openssl) = (TempDir::new().expect("a folder"), OpenSsl::new());
    let image = image(&dir);
    let names: Vec<_> = (0..60).map(|number| format!("DNS:h{number}.example")).collect();
    let names = with_extension(&format!("subjectAltName={}", names.join(",")));
    let certificate = openssl.self_signed("many", RSA, &names);
    with_ca_file(&image, &serving(&certificate), &certificate.cert)
        .exits(5)
        .says("is for h0.example, ")
        .says("h7.example, …, not for 127.0.0.1")
        .never_says("h8.example");
    let as_name = with_extension("subjectAltName=DNS:127.0.0.1");
    let certificate = openssl.self_signed("as-name", RSA, &as_name);
    with_ca_file(&image, &serving(&certificate), &certificate.cert)
        .exits(5)
        .says("has 127.0.0.1 as a DNS name, not as an address")
        .says("subjectAltName=IP:127.0.0.1");
}
