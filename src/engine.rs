//! The engine: what an embedder holds.

use crate::check::Check;
use crate::compare::Compare;
use crate::error::Result;
use crate::index::Index;
use crate::repository::Repository;
use crate::resources::Resources;
use crate::restore::Restore;
use crate::settings::Settings;
use crate::sink::Sink;
use crate::source::Source;
use crate::transfer::Transfer;
use std::sync::Arc;

/// Moves mail into a repository and out of it. Cloning shares everything; engines over one [`Resources`] share its memory and workers.
#[derive(Clone, Debug)]
pub struct Engine {
    repository: Repository,
    resources: Resources,
    settings: Settings,
}

/// Joins a repository, resources and settings.
#[derive(Debug)]
pub struct Builder {
    repository: Repository,
    resources: Option<Resources>,
    settings: Settings,
}

impl Engine {
    /// An engine for this repository.
    #[must_use]
    pub fn builder(repository: Repository) -> Builder {
        Builder { repository, resources: None, settings: Settings::default() }
    }

    /// Moves all that is new in `source` into the repository. Nothing happens until the transfer is polled.
    #[must_use]
    pub fn transfer(&self, source: impl Source) -> Transfer {
        self.transfer_shared(Arc::new(source))
    }

    /// As [`transfer`](Self::transfer), for a source that is shared already.
    #[must_use]
    pub fn transfer_shared(&self, source: Arc<dyn Source>) -> Transfer {
        let index: Arc<dyn Index> = Arc::clone(self.resources.index()) as _;
        Transfer::new(self.repository.clone(), self.resources.clone(), self.settings.clone(), index, source)
    }

    /// Restores what is in the repository into `sink`. Nothing happens until the restore is finished.
    #[must_use]
    pub fn restore(&self, sink: impl Sink) -> Restore {
        Restore::new(self.repository.clone(), self.resources.clone(), Arc::new(sink))
    }

    /// Checks the repository. Nothing happens until the check is finished.
    #[must_use]
    pub fn check(&self) -> Check {
        Check::new(self.repository.clone(), self.resources.clone())
    }

    /// Compares `source` with the repository. Nothing happens until the comparison is finished.
    #[must_use]
    pub fn compare(&self, source: impl Source) -> Compare {
        Compare::new(self.repository.clone(), self.resources.clone(), Arc::new(source))
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// What this engine shares with others.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.resources
    }
}

impl Builder {
    /// Shares these resources. Without, the engine gets [its own](Resources::new).
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = Some(resources);
        self
    }

    /// Works by these settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for settings that cannot work together; if the operating system refuses threads.
    pub fn build(self) -> Result<Engine> {
        self.settings.verify()?;
        let resources = self.resources.map_or_else(Resources::new, Ok)?;
        Ok(Engine { repository: self.repository, resources, settings: self.settings })
    }
}
