// Filters a row of logits by top-k, top-p and min-p, in this order, and draws one of the remaining
// tokens.
//
// top-k: x >= the k-th largest (ties stay)
// top-p: the fewest most likely tokens with top_p of the mass that top-k left; of ties the lowest
// min-p: probability >= min_p times the largest
// token[0] = the first token, in token order, whose running sum of mass exceeds quantile * total
// grid: [1], one workgroup. See sample/filter.wgsl for the thresholds.
struct Params {
    n: u32,     // vocabulary
    top_k: u32, // n or more to keep all
    top_p: f32, // 1 to keep all
    min_p: f32, // 0 to keep all
    quantile: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> token: array<u32>; // [1]

// The tokens that the filters keep.
struct Kept {
    least: u32,  // smallest key
    n_ties: u32, // tokens with the smallest key, the lowest first
    peak: f32,   // largest logit
}

var<workgroup> segment_ties: array<u32, 256>;
var<workgroup> segment_mass: array<f32, 256>;

fn find_kept(lane: u32, n_quads: u32) -> Kept {
    var highest = -3.0e38;
    for (var i = lane; i < n_quads; i += TREE_LANES) {
        let x = adjusted[i];
        highest = max(highest, max(max(x.x, x.y), max(x.z, x.w)));
    }
    var kept = Kept(0u, 0xffffffffu, tree_max(highest, lane));
    if p.top_k < p.n {
        kept.least = search(f32(p.top_k), false, 0u, kept.peak, lane, n_quads);
    }
    if p.top_p < 1.0 {
        let goal = max(p.top_p * mass_from(kept.least, kept.peak, lane, n_quads), 1e-30);
        let found = search(goal, true, kept.least, kept.peak, lane, n_quads);
        // Rounding must not move the threshold below the tokens of top-k or above the most likely
        // token.
        kept.least = clamp(found, kept.least, ordered(vec4<f32>(kept.peak)).x);
        let above = mass_from(kept.least + 1u, kept.peak, lane, n_quads);
        let tied = mass(vec4<f32>(unordered(kept.least)), kept.peak).x;
        kept.n_ties = u32(clamp(ceil((goal - above) / tied), 1.0, 1e9));
    }
    return kept;
}

// Mass of a token, 0 if filtered out. `ties` counts the tokens with the smallest key seen so far.
fn kept_mass(i: u32, kept: Kept, ties: ptr<function, u32>) -> f32 {
    let x = adjusted[i / 4u][i % 4u];
    let key = ordered(vec4<f32>(x)).x;
    var keep = key >= kept.least;
    if key == kept.least {
        keep = *ties < kept.n_ties;
        *ties += 1u;
    }
    let value = mass(vec4<f32>(x), kept.peak).x;
    return select(0.0, value, keep && value >= p.min_p);
}

@compute @workgroup_size(256)
fn draw(@builtin(local_invocation_index) lane: u32) {
    let n_quads = (p.n + 3u) / 4u;
    let kept = find_kept(lane, n_quads);

    // From here on, each lane has a segment of consecutive tokens.
    let per_lane = (p.n + TREE_LANES - 1u) / TREE_LANES;
    let first = min(lane * per_lane, p.n);
    let end = min(first + per_lane, p.n);
    var ties = 0u;
    for (var i = first; i < end; i++) {
        ties += select(0u, 1u, ordered(vec4<f32>(adjusted[i / 4u][i % 4u])).x == kept.least);
    }
    segment_ties[lane] = ties;
    workgroupBarrier();
    var ties_before = 0u;
    for (var l = 0u; l < lane; l++) {
        ties_before += segment_ties[l];
    }
    ties = ties_before;
    var sum = 0.0;
    for (var i = first; i < end; i++) {
        sum += kept_mass(i, kept, &ties);
    }
    segment_mass[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        token[0] = choose(kept, per_lane);
    }
}

// Finds the token at the quantile: first its segment, then its position in the segment. If rounding
// puts the quantile past the end, it returns the last token with mass.
fn choose(kept: Kept, per_lane: u32) -> u32 {
    var total = 0.0;
    for (var l = 0u; l < TREE_LANES; l++) {
        total += segment_mass[l];
    }
    let goal = p.quantile * total;
    var before = 0.0; // mass before the segment
    var ties = 0u;    // ties before the segment
    var passed = 0.0; // mass before the current segment
    var passed_ties = 0u;
    var segment = 0u;
    for (var l = 0u; l < TREE_LANES; l++) {
        if segment_mass[l] > 0.0 {
            segment = l;
            before = passed;
            ties = passed_ties;
            if passed + segment_mass[l] > goal {
                break;
            }
        }
        passed += segment_mass[l];
        passed_ties += segment_ties[l];
    }
    var chosen = 0u;
    var sum = 0.0;
    for (var i = segment * per_lane; i < min((segment + 1u) * per_lane, p.n); i++) {
        let value = kept_mass(i, kept, &ties);
        if value > 0.0 {
            chosen = i;
            sum += value;
            if before + sum > goal {
                break;
            }
        }
    }
    return chosen;
}
