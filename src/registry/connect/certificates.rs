//! The certificates that are trusted for a registry, and the client's own certificate: from
//! `--ca-file`, from the folders `certs.d`, from the environment, and from the system.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsOptions;
use super::verify::TrustedRoots;
use crate::registry::Error;

/// A longer certificate file is rejected: some paths, such as `/dev/zero`, have no end.
const MAX_PEM_BYTES: u64 = 16 << 20;

/// nixpkgs sets the variables to this path if a shell must not find the system's certificates.
const NO_FILE: &str = "/no-cert-file.crt";

/// Variables that name a certificate file. Both are used: Nix sets the first one in every shell, so
/// it does not replace the second one, which a user may set for a single command.
const FILE_VARIABLES: [&str; 2] = ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"];
/// The variable that names certificate folders.
const FOLDERS_VARIABLE: &str = "SSL_CERT_DIR";

/// The certificates to trust for the registry with this `certs.d` folder.
pub fn trust(options: &TlsOptions, folder: &HostFolder) -> Result<TrustedRoots, Error> {
    if options.skip_verify {
        return Ok(TrustedRoots::Anyone);
    }
    let (mut certificates, missing) = system();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    for file in options.ca_file.iter().chain(&folder.authorities) {
        for certificate in read(file)? {
            roots.add(certificate.clone()).map_err(|_| {
                unusable(file, "a certificate in it is damaged, or of an unknown form")
            })?;
            certificates.push(certificate);
        }
    }
    let certificates = HashSet::from_iter(certificates);
    Ok(TrustedRoots::Only { roots, certificates, missing })
}

/// The certificates that the environment names, or else the system's. Also returns which named
/// files have no certificates.
fn system() -> (Vec<CertificateDer<'static>>, Option<String>) {
    let set = |name: &str| {
        std::env::var_os(name).filter(|value| !value.is_empty() && value.as_os_str() != NO_FILE)
    };
    let files = FILE_VARIABLES.iter().filter_map(|name| Some((*name, set(name)?)));
    let folders = set(FOLDERS_VARIABLE);
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let named = files.map(|(name, path)| (name, PathBuf::from(path)));
    let in_folders = folders.iter().flat_map(|folders: &OsString| std::env::split_paths(folders));
    let in_folders = in_folders.filter(|path| !path.as_os_str().is_empty());
    for (name, path) in named.chain(in_folders.map(|path| (FOLDERS_VARIABLE, path))) {
        let loaded = match name {
            FOLDERS_VARIABLE => rustls_native_certs::load_certs_from_paths(None, Some(&path)).certs,
            _ => readable(&path),
        };
        if loaded.is_empty() {
            let problem = match std::fs::metadata(&path) {
                Err(error) => plain(&error),
                Ok(meta) if meta.is_dir() && name != FOLDERS_VARIABLE => "is a folder".to_owned(),
                Ok(meta) if !meta.is_dir() && name == FOLDERS_VARIABLE => {
                    "is not a folder".to_owned()
                }
                Ok(_) => "holds no certificate that can be read".to_owned(),
            };
            missing.push(format!("{name} names {}, which {problem}", path.display()));
        }
        found.extend(loaded);
    }
    if found.is_empty() {
        found = usual();
    }
    (found, (!missing.is_empty()).then(|| missing.join("; ")))
}

/// The certificates in the system's usual files and folders.
#[cfg(not(target_os = "macos"))]
fn usual() -> Vec<CertificateDer<'static>> {
    let places = openssl_probe::probe();
    let folders = places.cert_dir.iter().map(|folder| (None, Some(folder.as_path())));
    let all = folders.chain([(places.cert_file.as_deref(), None)]);
    all.flat_map(|(file, folder)| rustls_native_certs::load_certs_from_paths(file, folder).certs)
        .collect()
}

/// The certificates of the system's keychain.
#[cfg(target_os = "macos")]
fn usual() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// The client's certificate, with the intermediate certificates, and its key.
pub fn identity(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let chain = read(certificate)?;
    let private = PrivateKeyDer::from_pem_slice(&pem(key)?)
        .map_err(|error| unusable(key, &problem(error)))?;
    Ok((chain, private))
}

/// The certificates in a file, without damaged ones.
fn readable(file: &Path) -> Vec<CertificateDer<'static>> {
    let bytes = pem(file).unwrap_or_default();
    CertificateDer::pem_reader_iter(&bytes[..]).filter_map(Result::ok).collect()
}

fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(&pem(file)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(file, &problem(error)))?;
    if found.is_empty() {
        return Err(unusable(file, "it holds no PEM certificate (BEGIN CERTIFICATE)"));
    }
    Ok(found)
}

/// The bytes of a PEM file.
fn pem(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(MAX_PEM_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| unusable(file, &format!("it {}", plain(&error))))?;
    if bytes.len() as u64 > MAX_PEM_BYTES {
        let why = format!("it is longer than the {MAX_PEM_BYTES} bytes that are read");
        return Err(unusable(file, &why));
    }
    Ok(bytes)
}

/// What is wrong with a PEM file.
fn problem(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => plain(&error),
        pem::Error::NoItemsFound => "it holds no PEM private key (BEGIN PRIVATE KEY)".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "it ends in the middle of a PEM section".to_owned(),
        pem::Error::Base64Decode(_) => "a PEM section in it is not base64".to_owned(),
        _ => "it is not a PEM file".to_owned(),
    }
}

/// An I/O error in words, without its number where possible.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        std::io::ErrorKind::PermissionDenied => "may not be read by this user".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a folder".to_owned(),
        _ => format!("cannot be read ({error})"),
    }
}

/// The error for a file that cannot be used.
pub fn unusable(file: &Path, why: &str) -> Error {
    Error::Settings(format!("cannot use {} for TLS: {why}", file.display()))
}

/// The files for a registry in the `certs.d/<host:port>/` folders of Docker and containers: `*.crt`
/// are trusted authorities, and `*.cert` with its `*.key` is the client's certificate.
#[derive(Debug, Default)]
pub struct HostFolder {
    pub authorities: Vec<PathBuf>,
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl HostFolder {
    pub fn find(host: &str) -> Self {
        let folder = |variable| std::env::var_os(variable).map(PathBuf::from);
        let mut parents = Vec::new();
        if let Some(config) = folder("XDG_CONFIG_HOME") {
            parents.push(config.join("containers/certs.d"));
        }
        if let Some(home) = folder("HOME") {
            parents.push(home.join(".config/containers/certs.d"));
            parents.push(home.join(".docker/certs.d"));
        }
        parents.push("/etc/containers/certs.d".into());
        parents.push("/etc/docker/certs.d".into());

        let mut found = Self::default();
        for parent in parents {
            let Ok(entries) = std::fs::read_dir(parent.join(host)) else {
                continue;
            };
            // Opening a pipe would wait for a writer, so skip pipes.
            let can_be_opened = |file: &PathBuf| {
                std::fs::metadata(file).is_ok_and(|file| file.is_file() || file.is_dir())
            };
            let mut files: Vec<_> =
                entries.filter_map(|e| Some(e.ok()?.path())).filter(can_be_opened).collect();
            files.sort();
            for file in files {
                match file.extension().and_then(|e| e.to_str()) {
                    Some("crt") => found.authorities.push(file),
                    Some("cert") if found.identity.is_none() => {
                        let key = file.with_extension("key");
                        found.identity = Some((file, key));
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_not_read_to_its_end() {
        for read in [read(Path::new("/dev/zero")).map(drop), pem(Path::new("/dev/zero")).map(drop)]
        {
            let error = read.unwrap_err().to_string();
            assert!(error.contains("/dev/zero for TLS: it is longer than"), "{error}");
        }
        assert!(readable(Path::new("/dev/zero")).is_empty());
    }

    #[test]
    fn a_damaged_certificate_does_not_hide_those_after_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let section =
            |text| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        let (good, bad) = (section("AAAA"), section("*"));
        fs_err::write(file.path(), format!("{bad}{good}{bad}{good}")).unwrap();
        assert_eq!(readable(file.path()).len(), 2);
    }
}
