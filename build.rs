//! The icon, version and manifest of the Windows program. Other platforms have nothing to build.

fn main() {
    println!("cargo:rerun-if-changed=assets/icon/longreach.ico");
    println!("cargo:rerun-if-changed=assets/packaging/longreach.manifest");
    #[cfg(windows)]
    if std::env::var_os("CARGO_CFG_WINDOWS").is_some() {
        let mut resource = winresource::WindowsResource::new();
        resource.set_icon("assets/icon/longreach.ico").set_manifest_file("assets/packaging/longreach.manifest");
        if let Err(e) = resource.compile() {
            println!("cargo:warning=the program has no icon, since the resource compiler failed: {e}");
        }
    }
}
