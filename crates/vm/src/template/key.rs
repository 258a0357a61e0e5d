//! temp
use crate::accel::Accel;
use crate::image::Manifest;
use sha2::Digest as _;
use std::path::Path;

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct TemplateId(String);
impl std::fmt::Display for TemplateId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
pub(crate) struct KeyParts<'a> {
    pub(crate) image: &'a Manifest,
    pub(crate) guest: &'a str,
    pub(crate) vmm: &'a str,
    pub(crate) accel: Accel,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u64,
    pub(crate) vmm_args: &'a [String],
    pub(crate) user: &'a str,
    pub(crate) warm_up: Option<&'a str>,
}
pub(crate) fn digest_of_program(path: &Path) -> std::io::Result<String> {
    let digest = sha2::Sha256::digest(std::fs::read(path)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}
pub(crate) fn id_of(p: &KeyParts<'_>) -> TemplateId {
    let text = format!(
        "{:?}",
        (
            &p.image.id,
            p.guest,
            p.vmm,
            p.accel,
            p.cpus,
            p.memory_mib,
            p.disk_mib,
            p.vmm_args,
            p.user,
            p.warm_up
        )
    );
    let digest = sha2::Sha256::digest(text);
    TemplateId(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}
