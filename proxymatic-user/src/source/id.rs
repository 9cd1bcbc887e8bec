//! The names of the sources.

use std::fmt;

use proxymatic_common::SourceCode;

/// The id of a source. Its printed form is the `source` of a service in the output of commands.
///
/// The order is the precedence: if two sources name one service, the service of the greater source is used whole. The
/// file comes first, because it is written for this host. Marathon before registrator is the order of
/// `meltwater/proxymatic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceId {
    /// The etcd of `--registrator`.
    Registrator,
    /// The Marathon of `--marathon`.
    Marathon,
    /// The file of `--file`.
    File,
}

impl SourceId {
    /// All sources.
    pub const ALL: [Self; 3] = [Self::Registrator, Self::Marathon, Self::File];

    /// Returns the code of the source in the maps.
    pub const fn code(self) -> SourceCode {
        match self {
            Self::Registrator => SourceCode::REGISTRATOR,
            Self::Marathon => SourceCode::MARATHON,
            Self::File => SourceCode::FILE,
        }
    }

    /// Returns whether the source has health checks of tasks. It then lists the tasks without any
    /// (`Service::unchecked`); no other source checks any task.
    pub const fn has_checks(self) -> bool {
        match self {
            Self::Marathon => true,
            Self::Registrator | Self::File => false,
        }
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code().name())
    }
}
