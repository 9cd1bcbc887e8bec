//! The keys of settings in the services file. The part before a dot is the name of a table, as in TOML.

use super::settings::SETTINGS;

/// The meaning of a key of the services file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKey {
    /// A setting, by its whole key.
    Setting(&'static str),
    /// A table of settings.
    Table(&'static str),
}

impl FileKey {
    /// Returns the meaning of a key in a table, or, without a table, of a key of a service; `None` if it is unknown.
    pub(crate) fn of(table: Option<&str>, key: &str) -> Option<Self> {
        SETTINGS.iter().find_map(|setting| match (setting.file.split_once('.'), table) {
            (Some((group, name)), Some(table)) => {
                (group == table && name == key).then_some(Self::Setting(setting.file))
            }
            (Some((group, _)), None) => (group == key).then_some(Self::Table(group)),
            (None, None) if setting.file == key || setting.label.is_some_and(|label| label.key == key) => {
                Some(Self::Setting(setting.file))
            }
            (None, _) => None,
        })
    }
}

/// Returns the keys of settings in a table, or, without a table, those of a service.
pub(crate) fn known_file_keys(table: Option<&str>) -> Vec<&'static str> {
    let mut keys = Vec::new();
    for setting in SETTINGS {
        match (setting.file.split_once('.'), table) {
            (Some((group, name)), Some(table)) if group == table => keys.push(name),
            (Some((group, _)), None) if !keys.contains(&group) => keys.push(group),
            (None, None) => {
                keys.extend(setting.label.map(|label| label.key).filter(|key| *key != setting.file));
                keys.push(setting.file);
            }
            _ => {}
        }
    }
    keys
}
