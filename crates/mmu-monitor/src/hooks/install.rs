//! Putting the hooks in, all or none, and taking them out.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::object::{self, Kind, Object};
use super::site::{self, PATCH, Site, Which};
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

/// What was prepared once, and is put in and taken out. The stubs and pads stay: a thread may be inside.
#[derive(Debug)]
pub(super) struct Installed {
    patched: Vec<Patched>,
}

impl Installed {
    /// Prepares all, and changes nothing yet.
    ///
    /// # Errors
    /// What is not as expected.
    pub(super) fn prepare() -> Result<Installed, String> {
        pin::check()?;
        let objects = object::find();
        if !objects.iter().any(|object| object.kind != Kind::Linker) {
            return Err(
                "this process has no glibc that could be patched; `explicit` works everywhere".to_string()
            );
        }
        let patched = objects.into_iter().map(Patched::prepare).collect::<Result<Vec<_>, _>>()?;
        Ok(Installed { patched })
    }

    /// Puts all in.
    ///
    /// # Errors
    /// Why not; then all is as before.
    pub(super) fn put(&self) -> Result<(), String> {
        let written = self.patched.iter().try_for_each(|one| one.put());
        let tested = written.and_then(|()| process::space().map_or(Ok(()), self_test::run));
        if tested.is_err() {
            self.take_back();
        }
        tested
    }

    /// Puts the old instructions back, where nobody else has patched since.
    pub(super) fn take_back(&self) {
        for one in &self.patched {
            // Refused only where putting in was refused.
            let _ = text::write_all(&one.object, &[], &one.restored());
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

    /// Puts the jumps in.
    ///
    /// # Errors
    /// Somebody else has patched since it was prepared, or nobody may write.
    pub(super) fn put(&self) -> Result<(), String> {
        // One that could not be taken back is there still.
        let is_known =
            |site: &Site, stub| text::bytes(site.address) == site.old || jump(site, stub).is_there();
        if let Some((site, _)) = self.pairs().find(|(site, stub)| !is_known(site, *stub)) {
            let offset = site.address - self.object.whole.start;
            return Err(format!("{}: somebody else has patched offset {offset:#x}", self.object.name));
        }
        text::write_all(&self.object, &self.pads(), &self.jumps())
    }

    /// Takes them out, where nobody else has patched since.
    #[cfg(test)]
    pub(super) fn take_back(&self) -> Result<(), String> {
        text::write_all(&self.object, &[], &self.restored())
    }

    /// The address of each site, and that of its stub.
    fn pairs(&self) -> impl Iterator<Item = (&Site, usize)> {
        self.sites.iter().enumerate().map(|(index, site)| (site, self.stubs.of(index)))
    }

    /// The long jumps of the pads. They are written each time, and always the same.
    fn pads(&self) -> Vec<Write> {
        let pad = |(site, stub): (&Site, usize)| {
            let pad = site.pad?;
            Some(Write::new(pad, &text::jump(pad, stub), stub))
        };
        self.pairs().filter_map(pad).collect()
    }

    fn jumps(&self) -> Vec<Write> {
        self.pairs().map(|(site, stub)| jump(site, stub)).collect()
    }

    fn restored(&self) -> Vec<Write> {
        let ours = |(site, stub): &(&Site, usize)| jump(site, *stub).is_there();
        let old = |(site, stub): (&Site, usize)| {
            let length = if site.pad.is_some() { text::SHORT } else { PATCH };
            Write::new(site.address, &site.old[..length], stub)
        };
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

/// The jump of a site: to its pad, if it has one, else to its stub.
fn jump(site: &Site, stub: usize) -> Write {
    match site.pad {
        Some(pad) => Write::new(site.address, &text::short_jump(site.address, pad), stub),
        None => Write::new(site.address, &text::jump(site.address, stub), stub),
    }
}
