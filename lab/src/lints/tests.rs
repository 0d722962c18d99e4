//! Tests of each lint on small shaders: one that breaks the rule and one that does not.

use super::check::{Exception, Finding, lints, of_cases, of_description, of_linked, settle, unused_files};
use super::rule::Rule;
use longreach::gpu::{Binding, Features, KernelDef, Kind, Source, shader};

/// A kernel `test/main` with this text; leaks memory, as tests may.
fn kernel(text: &str) -> &'static KernelDef {
    Box::leak(Box::new(KernelDef {
        label: "test/main",
        suffix: "",
        parts: vec![Source::new("test/main", text.to_string().leak())].leak(),
        bindings: &[],
        params: &[],
        constants: &[],
        alternatives: &[],
        work: |d| Ok(d.work(0)),
        reference_f32: |_| {},
        reference_f64: |_| {},
    }))
}

/// The violated rules of a shader, with their lines.
fn broken(text: &str) -> Vec<(Rule, String)> {
    let linked = shader::parse(kernel(text), &[], Features::NONE).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let found = of_linked(&linked, "test").unwrap();
    found.into_iter().map(|f| (f.rule, f.place.trim_start_matches("shaders/test/main.wgsl:").to_string())).collect()
}

/// A shader with the given statements at line 4, in a function with a value of every kind.
fn with_flow(statements: &str) -> String {
    format!(
        "struct P {{ n: u32 }}
@group(0) @binding(0) var<uniform> p: P; @group(0) @binding(1) var<storage, read> r: array<u32>; \
@group(0) @binding(2) var<storage, read_write> w: array<u32>; var<workgroup> s: array<u32, 64>; var<private> own: u32;
fn meet() {{ workgroupBarrier(); }} fn same(x: u32) -> u32 {{ return x + 1u; }} \
fn odd(x: u32) -> u32 {{ if x > 3u {{ return 1u; }} return 2u; }} fn put(x: ptr<function, u32>, y: u32) {{ *x = y; }} \
fn early(x: u32) {{ if x > 3u {{ return; }} s[0] = x; }}
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>, \
@builtin(num_workgroups) groups: vec3<u32>, @builtin(global_invocation_id) id: vec3<u32>) {{ var x = 0u; {statements} w[lane] = x; }}"
    )
}

/// Whether the statements are rejected, by the uniformity rule only.
fn diverges(statements: &str) -> bool {
    let found = broken(&with_flow(statements));
    assert!(found.iter().all(|(rule, _)| *rule == Rule::Uniformity), "{statements}: {found:?}");
    !found.is_empty()
}

#[test]
fn barriers_in_uniform_flow_are_fine() {
    for statements in [
        "workgroupBarrier();",
        "if p.n > 3u { workgroupBarrier(); }",
        "if group.x + groups.y > r[p.n] { meet(); }",
        "for (var i = 0u; i < p.n; i++) { workgroupBarrier(); }",
        "if lane > 3u { x = 1u; } workgroupBarrier();",
        "if p.n > 3u { return; } workgroupBarrier();",
        "for (var i = lane; i < p.n; i++) { x += i; } workgroupBarrier();",
        "for (var i = 0u; i < p.n; i++) { for (var j = 0u; j < lane; j++) { if j > 3u { break; } x += 1u; } meet(); }",
        "x = lane; x = 0u; if x == 0u { workgroupBarrier(); }",
        "if same(p.n) > 3u { workgroupBarrier(); }",
        "if odd(p.n) > 1u { workgroupBarrier(); }",
        "put(&x, p.n); if x > 3u { workgroupBarrier(); }",
        "early(lane); workgroupBarrier();",
        "let y = workgroupUniformLoad(&s[p.n]); if y > 3u { workgroupBarrier(); }",
        "if arrayLength(&w) > 3u { workgroupBarrier(); }",
        "switch p.n { case 1u: { workgroupBarrier(); } default: { x = lane; } }",
        "switch lane { case 1u: { x = 2u; } default: { x = 3u; } } workgroupBarrier();",
        "loop { if x > p.n { break; } workgroupBarrier(); continuing { x += 1u; break if x > 9u; } }",
        "x = subgroupAdd(lane);",
    ] {
        assert!(!diverges(statements), "{statements}");
    }
}

#[test]
fn barriers_in_divergent_flow_are_found() {
    for statements in [
        "if lane > 3u { workgroupBarrier(); }",
        "if id.x > 3u { meet(); }",
        "if w[0] > 3u { workgroupBarrier(); }",
        "if s[0] > 3u { storageBarrier(); }",
        "if own > 3u { workgroupBarrier(); }",
        "if r[lane] > 3u { workgroupBarrier(); }",
        "if lane > 3u { return; } workgroupBarrier();",
        "if lane > 3u { x = 1u; } if x > 0u { workgroupBarrier(); }",
        "for (var i = lane; i < p.n; i += 64u) { workgroupBarrier(); }",
        "for (var i = 0u; i < p.n; i++) { workgroupBarrier(); if i > lane { break; } }",
        "for (var i = 0u; i < p.n; i++) { if i > lane { continue; } workgroupBarrier(); }",
        "for (var i = 0u; i < p.n; i++) { workgroupBarrier(); if i > lane { return; } }",
        "loop { x += 1u; if x > lane { break; } } if x > 3u { workgroupBarrier(); }",
        "loop { if x > p.n { break; } workgroupBarrier(); continuing { x += 1u; break if x > lane; } }",
        "for (var i = 0u; i < p.n; i++) { if x > 3u { workgroupBarrier(); } x = lane; }",
        "if same(lane) > 3u { workgroupBarrier(); }",
        "if odd(lane) > 1u { workgroupBarrier(); }",
        "put(&x, lane); if x > 3u { workgroupBarrier(); }",
        "if lane > 3u { put(&x, 1u); } if x > 0u { workgroupBarrier(); }",
        "var a: array<u32, 4>; a[lane % 4u] = 1u; if a[0] > 0u { workgroupBarrier(); }",
        "var a: array<u32, 4>; if a[lane % 4u] > 0u { workgroupBarrier(); }",
        "let y = workgroupUniformLoad(&s[lane]); x = y;",
        "switch lane { case 1u: { workgroupBarrier(); } default: {} }",
        "switch p.n { case 1u: { if lane > 3u { break; } workgroupBarrier(); } default: {} }",
        "if lane > 3u && p.n > 2u { workgroupBarrier(); }",
        "if lane > 3u { x = subgroupAdd(lane); }",
        "if subgroupAdd(p.n) > 3u { workgroupBarrier(); }",
        "x = subgroupShuffleXor(lane, lane);",
    ] {
        assert!(diverges(statements), "{statements}");
    }
}

/// The violated rules of a function body that can use a float, a vector and a u32.
fn of_body(body: &str) -> Vec<(Rule, String)> {
    broken(&format!(
        "@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>; @group(0) @binding(1) var<storage, read_write> out: array<f32>; \
         const LOW = -80.0;
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {{ var x = a[i].x; let v = a[i]; let u = bitcast<u32>(x);
{body}
}}"
    ))
}

#[test]
fn exponentials_want_a_visible_bound() {
    let raw =
        ["exp(x)", "exp(max(x, LOW))", "exp2(x - 1.0)", "tanh(x)", "tanh(min(x, 9.0))", "sinh(x)", "cosh(min(x, 1.0))"];
    let more =
        ["pow(x, 2.0)", "pow(max(x, 0.0), 2.0)", "exp(min(x, 100.0))", "exp(v).x", "exp(select(0.0, x, x < 0.0))"];
    for e in raw.into_iter().chain(more) {
        assert_eq!(of_body(&format!("out[i] = {e};")), [(Rule::RawExponential, "3".to_string())], "{e}");
    }
    let fine = [
        "exp(min(x, 0.0))",
        "exp(-clamp(x, LOW, 80.0))",
        "exp(clamp(x - 3.0, LOW, 0.0))",
        "exp(clamp(v, vec4<f32>(LOW), vec4<f32>(0.0))).x",
        "exp(-abs(x))",
        "exp(-(x * x))",
        "exp(x - max(x, out[0]))",
        "exp2(min(x, 1.0) + 2.0)",
        "tanh(clamp(x, -20.0, 20.0))",
        "cosh(clamp(x, -20.0, 20.0))",
        "pow(clamp(x, 1e-3, 1e3), 2.0)",
        "exp(select(min(x, 1.0), 0.0, x < 0.0))",
        "log(x) + sqrt(x) / x",
    ];
    for e in fine {
        assert_eq!(of_body(&format!("out[i] = {e};")), [], "{e}");
    }
}

#[test]
fn inf_and_nan_are_nothing_to_rely_on() {
    let special =
        ["x != x", "x == x", "v.y != v.y", "(u & 0x7fffffffu) > 0x7f800000u", "u == 0x7fc00000u", "x * 2.0 != x * 2.0"];
    for e in special {
        assert_eq!(of_body(&format!("if {e} {{ out[i] = 1.0; }}")), [(Rule::NotFinite, "3".to_string())], "{e}");
    }
    for e in ["x != v.y", "v.x == v.y", "u > 0x80000000u", "u != 0xffffffffu", "i == i", "x < 3.0e38"] {
        let expected = if e == "i == i" { 1 } else { 0 };
        assert_eq!(of_body(&format!("if {e} {{ out[i] = 1.0; }}")).len(), expected, "{e}");
    }
    let mut linked =
        shader::parse(kernel("@compute @workgroup_size(1) fn main() { var x = 1.5; }"), &[], Features::NONE).unwrap();
    assert_eq!(of_linked(&linked, "").unwrap(), []);
    // WGSL cannot express it; only a front end could generate it.
    let mut constants = naga::Arena::new();
    constants.append(naga::Expression::Literal(naga::Literal::F32(f32::INFINITY)), naga::Span::default());
    linked.module.global_expressions = constants;
    let found = super::floats::float_violations(&linked.module);
    assert_eq!(found[0].0, Rule::NotFinite);
}

#[test]
fn atomic_floats_are_found() {
    let text = |ty: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> a: array<atomic<{ty}>>;\n@compute @workgroup_size(1) fn main() {{ atomicAdd(&a[0], {ty}(1)); }}"
        )
    };
    assert_eq!(broken(&text("f32")), [(Rule::FloatAtomic, "1".to_string())]);
    assert_eq!(broken(&text("u32")), []);
}

#[test]
fn webgpu_limits_hold() {
    let memory = |n: u32| {
        format!("var<workgroup> s: array<f32, {n}>;\n@compute @workgroup_size(64) fn main() {{ s[0] = 1.0; }}")
    };
    assert_eq!(broken(&memory(4096)), []);
    assert_eq!(broken(&memory(4097)), [(Rule::Limit, "test".to_string())]);
    let size = |n: u32| format!("@compute @workgroup_size({n}) fn main() {{}}");
    assert_eq!((broken(&size(256)).len(), broken(&size(257)).len()), (0, 1));
    let buffers = |n: u32| {
        let each = (0..n).map(|i| format!("@group(0) @binding({i}) var<storage, read_write> b{i}: array<f32>;\n"));
        each.collect::<String>() + "@compute @workgroup_size(1) fn main() {}"
    };
    assert_eq!((broken(&buffers(8)).len(), broken(&buffers(9)).len()), (0, 1));
}

#[test]
fn bindings_want_shapes() {
    let text = "var<storage, read> a: array<f32>; // [n]\nvar<storage, read> b: array<f32>;\nvar<storage, read> c: array<f32>; // n\n";
    let found = of_description(kernel(text));
    let places: Vec<&str> = found.iter().map(|f| f.place.as_str()).collect();
    assert_eq!(places, ["shaders/test/main.wgsl:2", "shaders/test/main.wgsl:3"]);
    let bindings = vec![Binding::read("a", Kind::Real, ""), Binding::read("b", Kind::U32, "[n]")];
    let bare = Box::leak(Box::new(KernelDef { bindings: bindings.leak(), ..copy(kernel("")) }));
    assert_eq!(of_description(bare).len(), 1);
}

fn copy(k: &KernelDef) -> KernelDef {
    KernelDef { ..*k }
}

#[test]
fn kernels_without_a_case_and_strangers_are_found() {
    let lone = kernel("");
    let cases = || longreach::kernels::bias::cases().into_iter().filter(|c| !c.bench);
    let found = of_cases(&[lone], cases());
    assert!(found.iter().any(|f| f.place == "test/main" && f.what.contains("no quick case")));
    assert!(found.iter().any(|f| f.place == "bias/add_bias" && f.what.contains("does not list it")));
}

#[test]
fn files_that_no_kernel_links_are_found() {
    let files = ["shaders/matmul/nt.wgsl", "shaders/matmul/lost.wgsl", "shaders/common/tree_subgroups.wgsl"];
    let found = unused_files(&files.map(str::to_string));
    assert_eq!(found.iter().map(|f| f.place.as_str()).collect::<Vec<_>>(), ["shaders/matmul/lost.wgsl"]);
}

#[test]
fn exceptions_cover_a_file_or_a_line_and_go_stale() {
    static ALLOWED: &[Exception] = &[
        Exception { rule: Rule::NotFinite, place: "shaders/a.wgsl", reason: "file" },
        Exception { rule: Rule::NotFinite, place: "shaders/b.wgsl:2", reason: "line" },
        Exception { rule: Rule::Limit, place: "shaders/a.wgsl", reason: "another rule" },
    ];
    let at = |place: &str| Finding {
        rule: Rule::NotFinite,
        kernel: String::new(),
        place: place.to_string(),
        what: String::new(),
        allowed: None,
    };
    let found = settle(
        ["shaders/a.wgsl:1", "shaders/a.wgsl:1", "shaders/b.wgsl:2", "shaders/b.wgsl:3"].map(at).to_vec(),
        ALLOWED,
    );
    let seen: Vec<_> = found.iter().map(|f| (f.rule, f.place.as_str(), f.allowed)).collect();
    assert_eq!(
        seen,
        [
            (Rule::NotFinite, "shaders/a.wgsl:1", Some("file")),
            (Rule::NotFinite, "shaders/b.wgsl:2", Some("line")),
            (Rule::NotFinite, "shaders/b.wgsl:3", None),
            (Rule::StaleException, "shaders/a.wgsl", None),
        ]
    );
}

#[test]
fn our_shaders_break_no_rule_without_a_reason() {
    let open: Vec<Finding> = lints().into_iter().filter(|f| f.allowed.is_none()).collect();
    assert!(open.is_empty(), "{open:#?}");
}
