//! Generates the code that tonic and capnp-rpc need; nothing without the feature `peers`.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(has_capnp)");
    println!("cargo::rerun-if-changed=schema");
    // a compiler that is installed later is found
    println!("cargo::rerun-if-env-changed=PATH");
    #[cfg(feature = "peers")]
    generate();
}

#[cfg(feature = "peers")]
fn generate() {
    let descriptors =
        protox::compile(["schema/bench.proto"], ["schema"]).expect("the schema is right");
    tonic_prost_build::configure()
        .bytes(".bench")
        .compile_fds(descriptors)
        .expect("the directory for generated code takes it");
    // the one tool that no crate brings; its package may lack the file for streams, which is here
    let module = vec!["peers".into(), "capnp_rpc".into()];
    match capnpc::CompilerCommand::new()
        .src_prefix("schema")
        .import_path("schema")
        .file("schema/bench.capnp")
        .default_parent_module(module)
        .run()
    {
        Ok(()) => println!("cargo::rustc-cfg=has_capnp"),
        Err(error) => println!("cargo::warning=capnp-rpc is left out: {error}"),
    }
}
