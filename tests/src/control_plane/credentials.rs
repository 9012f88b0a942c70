//! The certificates, keys and tokens of a control plane that lives for one test.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Names the API server answers to. The last one is its address as a guest sees it.
const SERVER_NAMES: [&str; 5] = [
    "127.0.0.1",
    "localhost",
    "kubernetes.default.svc",
    "10.0.0.1",
    super::ADDRESS_IN_GUEST,
];

/// A bearer token that the API server knows from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticToken {
    /// The secret; anything without a comma.
    pub token: String,
    /// For example `system:serviceaccount:nettune-system:nettune-agent`.
    pub user: String,
    /// That user's groups.
    pub groups: Vec<String>,
}

impl StaticToken {
    /// A token of `user`, in no group.
    pub fn of(user: &str, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            user: user.to_owned(),
            groups: Vec::new(),
        }
    }

    /// One that may do everything.
    pub fn admin(token: &str) -> Self {
        Self {
            groups: vec!["system:masters".to_owned()],
            ..Self::of("admin", token)
        }
    }

    fn line(&self, id: usize) -> String {
        format!(
            "{},{},{id},\"{}\"\n",
            self.token,
            self.user,
            self.groups.join(",")
        )
    }
}

/// Why credentials could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot make the {what}")]
    Generate {
        what: &'static str,
        #[source]
        source: rcgen::Error,
    },
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Paths of the files that the API server reads, and the certificate that its clients trust.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) service_account_key: PathBuf,
    pub(super) service_account_public_key: PathBuf,
    pub(super) tokens: PathBuf,
    /// PEM.
    pub(super) authority: String,
}

impl Credentials {
    pub(super) fn generate(dir: &Path, tokens: &[StaticToken]) -> Result<Self, CredentialsError> {
        let server_key = key_pair("API server's key")?;
        let (certificate, authority) = certificate(&server_key)?;
        let service_account = key_pair("service accounts' key")?;
        let lines = tokens
            .iter()
            .enumerate()
            .fold(String::new(), |mut lines, (id, token)| {
                let _ = write!(lines, "{}", token.line(id));
                lines
            });
        Ok(Self {
            certificate: write(dir, "apiserver.crt", &certificate)?,
            key: write(dir, "apiserver.key", &server_key.serialize_pem())?,
            service_account_key: write(dir, "sa.key", &service_account.serialize_pem())?,
            service_account_public_key: write(dir, "sa.pub", &service_account.public_key_pem())?,
            tokens: write(dir, "tokens.csv", &lines)?,
            authority,
        })
    }
}

/// A certificate for the API server and that of the authority which signed it.
fn certificate(server_key: &KeyPair) -> Result<(String, String), CredentialsError> {
    let failed = |what| move |source| CredentialsError::Generate { what, source };
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages.push(KeyUsagePurpose::KeyCertSign);
    authority
        .distinguished_name
        .push(DnType::CommonName, "nettune test authority");
    let authority_key = key_pair("authority's key")?;
    let authority_certificate = authority
        .self_signed(&authority_key)
        .map_err(failed("authority's certificate"))?;
    let issuer = Issuer::new(authority, authority_key);

    let names = SERVER_NAMES.map(str::to_owned).to_vec();
    let mut server = CertificateParams::new(names).map_err(failed("API server's names"))?;
    server
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    server.use_authority_key_identifier_extension = true;
    let signed = server
        .signed_by(server_key, &issuer)
        .map_err(failed("API server's certificate"))?;
    Ok((signed.pem(), authority_certificate.pem()))
}

fn key_pair(what: &'static str) -> Result<KeyPair, CredentialsError> {
    KeyPair::generate().map_err(|source| CredentialsError::Generate { what, source })
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf, CredentialsError> {
    let path = dir.join(name);
    match std::fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(source) => Err(CredentialsError::Write { path, source }),
    }
}
