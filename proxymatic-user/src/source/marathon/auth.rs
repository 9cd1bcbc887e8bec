//! How to get in: a user and a password, or a DC/OS service account, and whose certificates are believed.

use std::path::PathBuf;

use super::dcos::Account;
use crate::source::{
    credentials::{Credentials, credentials, take, too_open},
    tls,
};

/// The files that say how to get in.
#[derive(Clone, Debug, Default)]
pub struct AccessFiles {
    /// `--marathon-credentials-file`: `user:password` on its first line.
    pub credentials: Option<PathBuf>,
    /// `--dcos-service-account`: the JSON that DC/OS makes for one.
    pub service_account: Option<PathBuf>,
    /// `--marathon-ca-cert`: certificates in PEM; only what they have signed is believed.
    pub ca_cert: Option<PathBuf>,
}

/// How to get in, as read from those files.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// For each Marathon whose URL does not have credentials of its own.
    pub(super) credentials: Option<Credentials>,
    /// The same.
    pub(super) account: Option<Account>,
    /// `None`: those of this system.
    pub(super) ca: Option<Vec<reqwest::Certificate>>,
    /// What is not wrong, but not good either.
    pub(super) warnings: Vec<String>,
}

impl Access {
    /// Reads the files. `Err` has one sentence for each thing that is wrong.
    pub fn read(files: &AccessFiles) -> Result<Self, Vec<String>> {
        let (mut access, mut wrong) = (Self::default(), Vec::new());
        if let (Some(_), Some(_)) = (&files.credentials, &files.service_account) {
            wrong.push("--marathon-credentials-file and --dcos-service-account: only one of them can be used".into());
        }
        access.credentials = take("--marathon-credentials-file", &files.credentials, &mut wrong, credentials);
        access.account = take("--dcos-service-account", &files.service_account, &mut wrong, Account::parse);
        access.ca = take("--marathon-ca-cert", &files.ca_cert, &mut wrong, tls::certificates);
        for secret in [&files.credentials, &files.service_account].into_iter().flatten() {
            access.warnings.extend(too_open(secret));
        }
        if wrong.is_empty() { Ok(access) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn everything_wrong_with_the_files_is_said_at_once_and_without_secrets() {
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
        let says = ["only one of them", "absent: cannot be read: No such file", "account: ", "ca: "];
        assert_eq!(wrong.len(), says.len(), "{wrong:?}");
        for (wrong, says) in wrong.iter().zip(says) {
            assert!(wrong.contains(says) && !wrong.contains("hush"), "{wrong}");
        }
        assert!(Access::read(&AccessFiles::default()).is_ok());
    }

    #[test]
    fn a_secret_that_others_can_read_is_warned_of() {
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
