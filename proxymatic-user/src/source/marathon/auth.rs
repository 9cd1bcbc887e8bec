//! The access to Marathon: a user and a password, or a DC/OS service account, and the trusted certificate authorities.

use std::path::PathBuf;

use super::dcos::Account;
use crate::source::{
    credentials::{Credentials, parse_credentials, permissions_warning, read_file},
    tls,
};

/// The files for the access to Marathon.
#[derive(Clone, Debug, Default)]
pub struct AccessFiles {
    /// `--marathon-credentials-file`: `user:password` on its first line.
    pub credentials: Option<PathBuf>,
    /// `--dcos-service-account`: the JSON secret of a DC/OS service account.
    pub service_account: Option<PathBuf>,
    /// `--marathon-ca-cert`: certificates in PEM; only servers that they signed are trusted.
    pub ca_cert: Option<PathBuf>,
}

/// The access to Marathon, as read from those files.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The credentials for each Marathon whose URL has none of its own.
    pub(super) credentials: Option<Credentials>,
    /// The service account, instead of credentials.
    pub(super) account: Option<Account>,
    /// The trusted authorities; `None` for those of the system.
    pub(super) ca: Option<Vec<reqwest::Certificate>>,
    /// Warnings about the files, one sentence each.
    pub(super) warnings: Vec<String>,
}

impl Access {
    /// Reads the files.
    ///
    /// # Errors
    /// One sentence for each error.
    pub fn read(files: &AccessFiles) -> Result<Self, Vec<String>> {
        let (mut access, mut wrong) = (Self::default(), Vec::new());
        if let (Some(_), Some(_)) = (&files.credentials, &files.service_account) {
            wrong.push("--marathon-credentials-file and --dcos-service-account: only one of them can be used".into());
        }
        access.credentials =
            read_file("--marathon-credentials-file", &files.credentials, &mut wrong, parse_credentials);
        access.account = read_file("--dcos-service-account", &files.service_account, &mut wrong, Account::parse);
        access.ca = read_file("--marathon-ca-cert", &files.ca_cert, &mut wrong, tls::certificates);
        for secret in [&files.credentials, &files.service_account].into_iter().flatten() {
            access.warnings.extend(permissions_warning(secret));
        }
        if wrong.is_empty() { Ok(access) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn all_errors_in_files_are_reported_without_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let files = AccessFiles {
            credentials: Some(folder.path().join("absent")),
            service_account: file("account", r#"{"uid": "u", "private_key": "hush", "login_endpoint": "https://h"}"#),
            ca_cert: file("ca", "-----BEGIN CERTIFICATE-----\nhush"),
        };
        let wrong = Access::read(&files).unwrap_err();
        let expected = ["only one of them", "absent: cannot be read: No such file", "account: ", "ca: "];
        assert_eq!(wrong.len(), expected.len(), "{wrong:?}");
        for (wrong, expected) in wrong.iter().zip(expected) {
            assert!(wrong.contains(expected) && !wrong.contains("hush"), "{wrong}");
        }
        assert!(Access::read(&AccessFiles::default()).is_ok());
    }

    #[test]
    fn secret_that_others_can_read_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        fs::write(&path, "me:secret").unwrap();
        let warnings = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let files = AccessFiles { credentials: Some(path.clone()), ..AccessFiles::default() };
            Access::read(&files).unwrap().warnings
        };
        assert_eq!(warnings(0o600), [""; 0]);
        assert!(warnings(0o640)[0].contains("mode 640); chmod 600"));
    }
}
