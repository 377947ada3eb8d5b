//! Putting the hooks in, all or none, and taking them out.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::object::{self, Kind, Object};
use super::site::{self, Site, Which};
use super::stub::Stubs;
use super::text::{self, Write};
use super::{pin, self_test};
use crate::process;

/// An object with its sites and stubs.
#[derive(Debug)]
pub(super) struct Patched {
    object: Object,
    sites: Vec<Site>,
    stubs: Stubs,
}

/// What was put in.
#[derive(Debug)]
pub(super) struct Installed {
    patched: Vec<Patched>,
}

impl Installed {
    /// Puts all in.
    ///
    /// # Errors
    /// Why not; then all is as before.
    pub(super) fn put() -> Result<Installed, String> {
        pin::check()?;
        let objects = object::find();
        if !objects.iter().any(|object| object.kind != Kind::Linker) {
            return Err(
                "this process has no glibc that could be patched; `explicit` works everywhere".to_string()
            );
        }
        let patched = objects.into_iter().map(Patched::prepare).collect::<Result<Vec<_>, _>>()?;
        let mut installed = Installed { patched: Vec::new() };
        for one in patched {
            if let Err(reason) = text::write_all(one.object(), &one.jumps()) {
                installed.take_back();
                return Err(reason);
            }
            installed.patched.push(one);
        }
        if let Some(Err(silent)) = process::space().map(self_test::run) {
            installed.take_back();
            return Err(silent);
        }
        Ok(installed)
    }

    /// Puts the old instructions back, where nobody else has patched since.
    pub(super) fn take_back(&self) {
        for one in &self.patched {
            // Refused only where putting in was refused.
            let _ = text::write_all(one.object(), &one.restored());
        }
    }

    /// One line a site.
    pub(super) fn places(&self) -> Vec<String> {
        self.patched.iter().flat_map(Patched::places).collect()
    }
}

impl Patched {
    fn prepare(object: Object) -> Result<Patched, String> {
        let sites = site::find(&object)?;
        Self::with(object, sites)
    }

    pub(super) fn with(object: Object, sites: Vec<Site>) -> Result<Patched, String> {
        if sites.iter().any(|site| site.has_vectors) && !std::is_x86_feature_detected!("xsave") {
            return Err("this processor has no xsave, by which vector registers are kept".to_string());
        }
        let stubs = Stubs::make(&object, &sites)?;
        Ok(Patched { object, sites, stubs })
    }

    pub(super) fn object(&self) -> &Object {
        &self.object
    }

    /// The address of each site, and that of its stub.
    fn pairs(&self) -> impl Iterator<Item = (&Site, usize)> {
        self.sites.iter().enumerate().map(|(index, site)| (site, self.stubs.of(index)))
    }

    pub(super) fn jumps(&self) -> Vec<Write> {
        let jump = |(site, stub): (&Site, usize)| {
            let bytes = text::jump(site.address, stub);
            Write { address: site.address, bytes, detour: stub }
        };
        self.pairs().map(jump).collect()
    }

    pub(super) fn restored(&self) -> Vec<Write> {
        let ours =
            |(site, stub): &(&Site, usize)| text::bytes(site.address) == text::jump(site.address, *stub);
        let old =
            |(site, stub): (&Site, usize)| Write { address: site.address, bytes: site.old, detour: stub };
        self.pairs().filter(ours).map(old).collect()
    }

    fn places(&self) -> impl Iterator<Item = String> {
        self.sites.iter().map(|site| {
            let offset = site.address - self.object.whole.start;
            let call = match site.which {
                Which::Number(number) => format!("system call {number}"),
                Which::Any => "any system call".to_string(),
            };
            let vectors = if site.has_vectors { ", vector registers kept" } else { "" };
            format!("{}+{offset:#x}: {call}{vectors}", self.object.name)
        })
    }
}
