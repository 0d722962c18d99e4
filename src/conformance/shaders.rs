//! Every linked shader: its translation to the drivers' languages, and its text as standard WGSL.
//!
//! Needs no device. `gpu/shader/translate.rs` makes the translations. The crate in `lab/` checks the
//! shaders themselves.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;

use super::validator::{Verdict, judge};
use crate::atomic_file::{write_file, write_folder};
use crate::error::Result;

use crate::gpu::shader::translate::{Checks, Target, translate};
use crate::gpu::shader::{self, Linked};
use crate::gpu::{Features, KernelDef};

/// A kernel in one variant with constant values: the input of one pipeline.
#[derive(Clone, Debug)]
pub struct Shader {
    /// The kernel.
    pub kernel: &'static KernelDef,
    /// Values of its constants.
    pub constants: Vec<u32>,
    /// The features of the variant.
    pub features: Features,
}

/// Every kernel of the program with values of its constants; some kernels come with several.
pub fn kernels() -> impl Iterator<Item = (&'static KernelDef, Vec<u32>)> {
    crate::kernels::all().into_iter().chain(crate::attention::kernels())
}

/// Every shader that the program may compile, in every variant, once. Constants with many values
/// (head sizes) are represented by a few.
pub fn all() -> Vec<Shader> {
    let mut seen = BTreeSet::new();
    let variants = |(kernel, constants): (&'static KernelDef, Vec<u32>)| {
        let variant = move |features| Shader { kernel, constants: constants.clone(), features };
        kernel.variants().into_iter().map(variant)
    };
    let shaders = kernels().flat_map(variants);
    shaders.filter(|s| seen.insert(s.file_name())).collect()
}

impl Shader {
    /// The text that distinguishes it from the kernel's other shaders: the kernel's suffix, its
    /// constants and the features of its variant, for example `f16 native-f16`, `D4=8` or `GROUP=64
    /// LANES=8 subgroups`.
    pub fn variant(&self) -> String {
        self.parts("=").join(" ")
    }

    /// A file name, unique among [`all`]: `matmul.tile.nt.bf16.wgsl`, `attend.forward.D4-8.wgsl`.
    pub fn file_name(&self) -> String {
        let stem = self.kernel.label.replace('/', ".");
        let parts = std::iter::once(stem).chain(self.parts("-")).chain(["wgsl".to_string()]);
        parts.collect::<Vec<_>>().join(".").replace(' ', ".")
    }

    fn parts(&self, between: &str) -> Vec<String> {
        let suffix = Some(self.kernel.suffix).filter(|v| !v.is_empty()).map(str::to_string);
        let constants = self.kernel.constants.iter().zip(&self.constants);
        let features = [("native-f16", self.features.f16), ("subgroups", self.features.subgroups)];
        let features = features.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name.to_string());
        suffix
            .into_iter()
            .chain(constants.map(|(name, value)| format!("{name}{between}{value}")))
            .chain(features)
            .collect()
    }

    /// Its linked text with the `enable` lines of the standard.
    pub fn standard_wgsl(&self) -> String {
        shader::standard_wgsl(self.kernel, &self.constants, self.features)
    }

    /// Links, parses and validates it.
    pub fn parse(&self) -> Result<Linked> {
        shader::parse(self.kernel, &self.constants, self.features)
    }
}

/// Writes every shader as a file of standard WGSL, for other compilers to judge; gives their
/// number. The files appear together, or none does.
pub fn dump(dir: &Path) -> Result<usize> {
    let texts: Vec<_> = all().iter().map(|s| (s.file_name(), s.standard_wgsl())).collect();
    write_folder(dir, |folder| {
        texts.iter().try_for_each(|(name, text)| write_file(&folder.join(name), text.as_str()))
    })?;
    Ok(texts.len())
}

/// One shader in one language.
#[derive(Clone, Debug)]
pub struct TranslationRow {
    /// Label of the kernel.
    pub kernel: String,
    /// Its variant and constants; empty if there is only one.
    pub variant: String,
    /// The language.
    pub target: Target,
    /// The result.
    pub status: TranslationStatus,
    /// Size of the translation without checks.
    pub bytes: usize,
}

/// The result of a translation. If naga can add runtime checks, it covers both versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TranslationStatus {
    /// Accepted by the named program.
    Validated(&'static str),
    /// Translated by naga, but not validated, for this reason.
    Translated(String),
    /// The language lacks a feature that this variant needs, so it never runs there.
    NotApplicable,
    /// Rejected by naga or the validator.
    Failed(String),
}

impl TranslationStatus {
    /// The result as a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Validated(_) => "validated",
            Self::Translated(_) => "translated",
            Self::NotApplicable => "not applicable",
            Self::Failed(_) => "failed",
        }
    }
}

/// Every shader in every language.
pub fn translations() -> Vec<TranslationRow> {
    let shaders = all();
    let pairs: Vec<_> = shaders.iter().flat_map(|shader| Target::ALL.map(|target| (shader, target))).collect();
    pairs.into_par_iter().map(|(shader, target)| row(shader, target)).collect()
}

fn row(shader: &Shader, target: Target) -> TranslationRow {
    let (status, bytes) = shader
        .parse()
        .and_then(|linked| status(&linked, target))
        .unwrap_or_else(|e| (TranslationStatus::Failed(e.to_string()), 0));
    TranslationRow { kernel: shader.kernel.label.to_string(), variant: shader.variant(), target, status, bytes }
}

/// Translates without and with checks and validates both; the size is that without checks.
fn status(linked: &Linked, target: Target) -> Result<(TranslationStatus, usize)> {
    let Some(code) = translate(linked, target, Checks::Off)? else { return Ok((TranslationStatus::NotApplicable, 0)) };
    let checked = translate(linked, target, Checks::On)?.filter(|checked| *checked != code);
    let mut status = TranslationStatus::NotApplicable;
    for (variant, code) in std::iter::once(("", &code)).chain(checked.as_ref().map(|c| ("with checks: ", c))) {
        status = match judge(target, code) {
            Verdict::Accepted(by) => TranslationStatus::Validated(by),
            Verdict::NotJudged(why) => TranslationStatus::Translated(why),
            Verdict::Refused(said) => return Ok((TranslationStatus::Failed(format!("{variant}{said}")), code.len())),
        };
    }
    Ok((status, code.len()))
}
