// The CPU kernels behind asymmlib.fast: a list of steps (convolutions with batch norm and activation, means of planes)
// runs in one call, forward or backward.
// Tensors are float32 and, but for the first and the last of a list, channel-inner: [N, H, W, C], so that every loop goes
// over channels, however small the planes are, and a pointwise convolution of a whole batch is one matrix product.
// Known are depthwise convolutions (3x3, 5x5, stride 1 or 2) and dense ones (any odd side and stride), all with padding
// K / 2. A depthwise one may read a second input, `side`, as `copies` times side, then x, then `copies` times side, as if
// they had been concatenated.
// An input may be raw: the convolution's output of the step before, to which this step applies that step's batch norm
// and activation as it reads. Then the gradient that goes back has passed that activation, and its sums are made.
// No function keeps state. All loops are split statically and every sum has a fixed order: equal input and equal thread
// count give equal bits. (A dynamic schedule would do more harm: Paddle ships an old libiomp5, which hands out wrong
// iterations to code compiled for GCC's libgomp.)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <type_traits>
#include <vector>
#include <omp.h>
using Int = int64_t;
extern "C" int dnnl_sgemm(char trans_a, char trans_b, Int m, Int n, Int k, float alpha, const float* a, Int lda,
                          const float* b, Int ldb, float beta, float* c, Int ldc);

namespace {
// steps ---------------------------------------------------------------------------------------------------------
enum Kind : Int { ENTER, LEAVE, DENSE, DEPTHWISE, POOL };  // to channel-inner, back from it, convolutions, means
enum Activation : Int { NONE, RELU, RELU6, HARDSWISH, HARDSIGMOID };
enum Norm : Int { PLAIN, RUNNING, BATCH };  // no batch norm (bias at most), by running or by batch statistics

// What batch norm and activation of a step need; gamma and beta may be missing, beta alone is a bias.
struct Finish { const float *gamma, *beta, *mean, *scale; };  // scale: 1 / sqrt(variance + eps)
// The structs that kernels.py fills, field by field in this order.
struct Layer {
  Int kind, N, C, H, W, side, copies, O, K, S, activation, norm, in_activation;
  Int planar;             // whether x is [N, C, H, W] (a dense step whose input needs no gradient)
  Int known, accumulate;  // backward: gz has passed the activation, ggamma and gbeta are given; add to gx and gside
  Int rectify;            // whether what has been added to its residual is cut off below 0
  Int oh() const { return (H - 1) / S + 1; }  // K is odd and the padding K / 2
  Int ow() const { return (W - 1) / S + 1; }
  Int area() const { return oh() * ow(); }
  Int rows() const { return N * area(); }  // pixels of the output
};
struct Tensors {
  const float *x, *side_x, *w;
  Finish in, out;  // in.mean is missing where x is not raw
  float *running_mean, *running_var;
  const float *factor, *residual;  // [N, C] that a raw input is multiplied by; what is added to the output
  float *y, *z;                    // convolution's output; the step's, or none
  const float *gz, *gpool;         // gradients, of z and of the means of its planes: one of them may be missing
  float *gx, *gside, *gw, *ggamma, *gbeta, *gfactor, *in_ggamma, *in_gbeta;  // all may be missing
};
struct Numbers { double eps, momentum; };
struct Job : Layer, Tensors, Numbers {};

Int divide_up(Int a, Int b) { return (a + b - 1) / b; }
struct Free { void operator()(float* p) const { std::free(p); } };
using Room = std::unique_ptr<float[], Free>;  // not zeroed; vectors in it cross no cache line
Room room_for(Int n) { return Room((float*)std::aligned_alloc(64, (n * sizeof(float) / 64 + 1) * 64)); }
Room zeros_for(Int n) {
  Room room = room_for(n);
  std::fill_n(room.get(), n, 0.f);
  return room;
}

// batch norm and activation -------------------------------------------------------------------------------------
// Calls f with what is known only at run time as constants of the compiler's, so that no inner loop has to ask.
template <class F> void decide(bool value, F f) { value ? f(std::true_type()) : f(std::false_type()); }
template <class F> void decide_kind(Int activation, F f) {
  if (activation == NONE) f(std::integral_constant<Int, NONE>());
  else if (activation == HARDSWISH) f(std::integral_constant<Int, HARDSWISH>());
  else if (activation == HARDSIGMOID) f(std::integral_constant<Int, HARDSIGMOID>());
  else f(std::integral_constant<Int, RELU>());  // clips to 0..high
}
// T is float or a vector of floats.
template <class T> inline T clip(T v, T low, T high) { v = v < low ? low : v; return high < v ? high : v; }
template <Int kind, class T> inline T activate(T v, float high) {
  const T zero{}, six = zero + 6.f, sixth = zero + 1 / 6.f;
  if constexpr (kind == HARDSWISH) return v * clip(v + 3.f, zero, six) * sixth;
  if constexpr (kind == HARDSIGMOID) return clip(v + 3.f, zero, six) * sixth;
  if constexpr (kind == RELU) return clip(v, zero, zero + high);
  return v;
}
template <Int kind, class T> inline T slope(T v, float high) {
  const T zero{}, one = zero + 1.f, three = zero + 3.f;
  if constexpr (kind == HARDSWISH) {
    const T inner = v < three ? (2.f * v + 3.f) * (1 / 6.f) : one;
    return v > -three ? inner : zero;
  }
  if constexpr (kind == HARDSIGMOID) { const T inner = v < three ? zero + 1 / 6.f : zero; return v > -three ? inner : zero; }
  if constexpr (kind == RELU) { const T inner = v < zero + high ? one : zero; return v > zero ? inner : zero; }
  return one;
}

// Batch norm of all channels as k * y + o, and their activation. Narrow rows are done several at once: the constants
// are repeated, so that a line of `repeat` rows is long enough for vectors.
struct Channels {
  Int C, repeat = 1, activation;
  float high;
  std::vector<float> k, o, mean, from_sum, from_dot;  // from_...: what batch statistics add to the gradient
  Channels(const Finish& f, Int activation, Int C) : C(C), activation(activation) {
    high = activation == RELU6 ? 6 : INFINITY;
    while (repeat < 64 && repeat * C < 64) repeat++;
    for (auto* v : {&k, &o, &mean, &from_sum, &from_dot}) v->assign(repeat * C, 0);
    for (Int i = 0; i < repeat * C; i++) {
      const Int c = i % C;
      mean[i] = f.mean ? f.mean[c] : 0;
      k[i] = (f.mean ? f.scale[c] : 1) * (f.gamma ? f.gamma[c] : 1), o[i] = (f.beta ? f.beta[c] : 0) - mean[i] * k[i];
    }
  }
  // Calls f(row, n): n numbers from `row` on; `single` rows where something differs from row to row.
  template <class F> void each_line(Int rows, bool single, F f) const {
    const Int step = single ? 1 : repeat;
    Int r = 0;
    for (; r + step <= rows; r += step) f(r, step * C);
    for (; r < rows; r++) f(r, C);
  }
};
template <class F> inline void each(Int n, F f) {
#pragma omp simd
  for (Int i = 0; i < n; i++) f(i);
}
// d = act(bn(x)) * factor, or + residual and then at least `low`, for rows of channels, of which the first is row `first`
// of the tensor.
void apply(const Channels& c, const float* x, float* d, Int rows, const float* factor = nullptr, Int area = 1,
           Int first = 0, const float* residual = nullptr, float low = -INFINITY) {
  const auto with = [&](auto kind, auto multiplies, auto adds) {
    c.each_line(rows, multiplies, [&](Int row, Int n) {
      const float *k = c.k.data(), *o = c.o.data(), *s = x + row * c.C, high = c.high;
      const float* f = multiplies ? factor + (first + row) / area * c.C : nullptr;
      const float* r = adds ? residual + row * c.C : nullptr;
      float* to = d + row * c.C;
      each(n, [=](Int i) {
        const float v = activate<kind>(k[i] * s[i] + o[i], high);
        to[i] = multiplies ? v * f[i] : adds ? std::max(v + r[i], low) : v;
      });
    });
  };
  decide_kind(c.activation, [&](auto kind) {
    if (factor) with(kind, std::true_type(), std::false_type());
    else decide(residual, [&](auto adds) { with(kind, std::false_type(), adds); });
  });
}

// Two sums for each channel: in float over some rows, in double over all.
struct Totals {
  static constexpr Int FEW = 256;
  double n = 0;  // rows, where somebody counts them
  std::vector<double> a, b;
  std::vector<float> few;
  explicit Totals(Int C = 0) : a(C), b(C), few(2 * (C + 64)) {}
  // Calls f(row, n, a, b), which adds to n sums of each kind, for all rows.
  template <class F> void add(const Channels& c, Int rows, bool single, F f) {
    float *const fa = few.data(), *const fb = fa + c.repeat * c.C;
    for (Int at = 0; at < rows; at += FEW) {
      std::fill_n(fa, 2 * c.repeat * c.C, 0.f);
      c.each_line(std::min(FEW, rows - at), single, [&](Int row, Int n) { f(at + row, n, fa, fb); });
      for (Int i = 0; i < c.repeat * c.C; i++) a[i % c.C] += fa[i], b[i % c.C] += fb[i];
    }
  }
  void add(const Totals& other) {
    for (size_t i = 0; i < a.size(); i++) a[i] += other.a[i], b[i] += other.b[i];
  }
};
using AllTotals = std::vector<Totals>;  // one for each thread
Totals& joined(AllTotals& all) {
  for (size_t i = 1; i < all.size(); i++) all[0].add(all[i]);
  return all[0];
}

// gx passes the activation of a raw x on its way back, and its sums are added.
void pass(const Channels& c, const float* x, float* gx, Int rows, Totals& totals) {
  decide_kind(c.activation, [&](auto kind) {
    totals.add(c, rows, false, [&](Int row, Int n, float* a, float* b) {
      const float *k = c.k.data(), *o = c.o.data(), *m = c.mean.data(), *s = x + row * c.C, high = c.high;
      float* g = gx + row * c.C;
      each(n, [=](Int i) {
        const float v = g[i] * slope<kind>(k[i] * s[i] + o[i], high);
        g[i] = v, a[i] += v, b[i] += v * (s[i] - m[i]);
      });
    });
  });
}
// Calls f(gz, share): where the gradient of row `row` begins, and that of its plane's mean (per pixel times `area`).
template <class F> void decide_gradient(const Job& j, F f) {
  if (!j.gz) f(std::false_type(), std::true_type());
  else decide(j.gpool, [&](auto shared) { f(std::true_type(), shared); });
}
// Gradient of y from row `first` on.
void gradient(const Job& j, const Channels& c, Int first, Int rows, float* d) {
  const Int C = c.C, area = j.area();
  decide_kind(c.activation, [&](auto kind) { decide_gradient(j, [&](auto direct, auto shared) {
    c.each_line(rows, shared, [&](Int row, Int n) {
      const Int at = (first + row) * C;
      const float *k = c.k.data(), *o = c.o.data(), *m = c.mean.data(), *fs = c.from_sum.data(), *fd = c.from_dot.data();
      const float *y = j.y + at, *g = direct ? j.gz + at : nullptr, high = c.high, part = 1.f / area;
      const float* s = shared ? j.gpool + (first + row) / area * C : nullptr;
      float* to = d + row * C;
      each(n, [=](Int i) {
        float v = (direct ? g[i] : 0.f) + (shared ? s[i] * part : 0.f);
        if (kind != NONE) v *= slope<kind>(k[i] * y[i] + o[i], high);
        to[i] = k[i] * (v - fs[i] - (y[i] - m[i]) * fd[i]);
      });
    });
  }); });
}
// The sums over rows that gamma's and beta's gradients are made of.
void gradient_sums(const Job& j, const Channels& c, Int first, Int rows, Totals& totals) {
  const Int C = c.C, area = j.area();
  decide_kind(c.activation, [&](auto kind) { decide_gradient(j, [&](auto direct, auto shared) {
    totals.add(c, rows, shared, [&](Int row, Int n, float* a, float* b) {
      const Int at = (first + row) * C;
      const float *k = c.k.data(), *o = c.o.data(), *m = c.mean.data(), *y = j.y + at, high = c.high, part = 1.f / area;
      const float *g = direct ? j.gz + at : nullptr, *s = shared ? j.gpool + (first + row) / area * C : nullptr;
      each(n, [=](Int i) {
        float v = (direct ? g[i] : 0.f) + (shared ? s[i] * part : 0.f);
        if (kind != NONE) v *= slope<kind>(k[i] * y[i] + o[i], high);
        a[i] += v, b[i] += v * (y[i] - m[i]);
      });
    });
  }); });
}
// Calls f(thread, first, rows) for pieces of all rows.
template <class F> void in_pieces(Int rows, F f) {
#pragma omp parallel for schedule(static)
  for (Int i = 0; i < divide_up(rows, Totals::FEW); i++)
    f(omp_get_thread_num(), i * Totals::FEW, std::min(Totals::FEW, rows - i * Totals::FEW));
}
// First half of batch norm's gradient: gamma's and beta's, unless known, and what the second half needs of them.
Channels output_gradient(const Job& j) {
  Channels channels(j.out, j.known ? NONE : j.activation, j.O);
  if (!j.known && j.gbeta) {
    AllTotals all(omp_get_max_threads(), Totals(j.O));
    in_pieces(j.rows(), [&](Int t, Int first, Int rows) { gradient_sums(j, channels, first, rows, all[t]); });
    const Totals& sums = joined(all);
    for (Int c = 0; c < j.O; c++) {
      j.gbeta[c] = sums.a[c];
      if (j.ggamma) j.ggamma[c] = sums.b[c] * j.out.scale[c];
    }
  }
  for (Int i = 0; j.norm == BATCH && i < channels.repeat * j.O; i++) {
    const Int c = i % j.O;
    channels.from_sum[i] = j.gbeta[c] / j.rows(), channels.from_dot[i] = j.ggamma[c] / j.rows() * j.out.scale[c];
  }
  return channels;
}
void store_gradients(const Job& j, const Totals& sums) {  // of the batch norm that a raw input lacked
  for (Int c = 0; c < j.C; c++) j.in_gbeta[c] = sums.a[c], j.in_ggamma[c] = sums.b[c] * j.in.scale[c];
}

// What the outputs are normalised by; batch statistics, of sums and sums of squares, update the running ones as Paddle
// does (biased variance).
void statistics(const Job& j, const Totals* sums) {
  for (Int c = 0; c < j.O; c++) {
    double mean = j.norm == RUNNING ? j.running_mean[c] : 0, variance = j.norm == RUNNING ? j.running_var[c] : 0;
    if (j.norm == BATCH) {
      mean = sums->a[c] / j.rows(), variance = std::max(0., sums->b[c] / j.rows() - mean * mean);
      j.running_mean[c] = j.momentum * j.running_mean[c] + (1 - j.momentum) * mean;
      j.running_var[c] = j.momentum * j.running_var[c] + (1 - j.momentum) * variance;
    }
    ((float*)j.out.mean)[c] = mean, ((float*)j.out.scale)[c] = j.norm == PLAIN ? 1 : 1 / std::sqrt(variance + j.eps);
  }
}
void finish(const Job& j) {  // writes z, if it is wanted
  if (!j.z) return;
  const Channels channels(j.out, j.activation, j.O);
  in_pieces(j.rows(), [&](Int, Int first, Int rows) {
    apply(channels, j.y + first * j.O, j.z + first * j.O, rows, nullptr, 1, first,
          j.residual ? j.residual + first * j.O : nullptr, j.rectify ? 0 : -INFINITY);
  });
}
void rectify_gradient(const Job& j) {  // in its place, which the residual's gradient shares
  in_pieces(j.rows(), [&](Int, Int first, Int rows) {
    each(rows * j.O, [z = j.z + first * j.O, g = (float*)j.gz + first * j.O](Int i) { g[i] = z[i] > 0 ? g[i] : 0; });
  });
}

// layout --------------------------------------------------------------------------------------------------------
constexpr int LANES = __BIGGEST_ALIGNMENT__ / sizeof(float);  // as many as the widest registers hold
template <int L> struct Lanes { typedef float V __attribute__((vector_size(L * sizeof(float)), aligned(4))); };
// GCC and Clang let a vector alias what it consists of.
template <int L> using Vec = typename Lanes<L>::V;
template <int L> inline Vec<L>& vec(const float* p) { return *(Vec<L>*)p; }
// Four rows of four: d has the columns.
inline void transpose4(const float* s, Int s_row, float* d, Int d_row) {
  typedef Vec<4> V;
  const V a = vec<4>(s), b = vec<4>(s + s_row), c = vec<4>(s + 2 * s_row), e = vec<4>(s + 3 * s_row);
  const V p = {a[0], b[0], a[1], b[1]}, q = {a[2], b[2], a[3], b[3]};
  const V u = {c[0], e[0], c[1], e[1]}, v = {c[2], e[2], c[3], e[3]};
  vec<4>(d) = V{p[0], p[1], u[0], u[1]}, vec<4>(d + d_row) = V{p[2], p[3], u[2], u[3]};
  vec<4>(d + 2 * d_row) = V{q[0], q[1], v[0], v[1]}, vec<4>(d + 3 * d_row) = V{q[2], q[3], v[2], v[3]};
}
void transpose(const float* s, Int rows, Int columns, float* d) {  // d[columns, rows], in tiles that stay in cache
  constexpr Int T = 64;
  for (Int r = 0; r < rows; r += T)
    for (Int c = 0; c < columns; c += T) {
      const Int r_end = std::min(r + T, rows), c_end = std::min(c + T, columns);
      const Int r4 = r + (r_end - r) / 4 * 4, c4 = c + (c_end - c) / 4 * 4;  // as far as fours go
      for (Int k = c; k < c4; k += 4)
        for (Int i = r; i < r4; i += 4) transpose4(s + i * columns + k, columns, d + k * rows + i, rows);
      for (Int k = c; k < c_end; k++)
        for (Int i = k < c4 ? r4 : r; i < r_end; i++) d[k * rows + i] = s[i * columns + k];
    }
}
void transpose_pictures(const Job& j, const float* s, float* d, bool inner) {
  const Int area = j.H * j.W, size = j.C * area;
#pragma omp parallel for schedule(static)
  for (Int n = 0; n < j.N; n++) transpose(s + n * size, inner ? j.C : area, inner ? area : j.C, d + n * size);
}
void pool_forward(const Job& j) {  // z: means of the planes of a raw x
  const Channels channels(j.in, j.in_activation, j.C);
  const Int area = j.H * j.W;
#pragma omp parallel for schedule(static)
  for (Int n = 0; n < j.N; n++) decide_kind(j.in_activation, [&](auto kind) {
    const float *k = channels.k.data(), *o = channels.o.data(), high = channels.high, part = 1.f / area;
    float* z = j.z + n * j.C;
    std::fill_n(z, j.C, 0.f);
    for (Int i = 0; i < area; i++) {
      const float* x = j.x + (n * area + i) * j.C;
      each(j.C, [=](Int c) { z[c] += activate<kind>(k[c] * x[c] + o[c], high); });
    }
    each(j.C, [=](Int c) { z[c] *= part; });
  });
}

// depthwise convolution -----------------------------------------------------------------------------------------
// Asks for the same channels some pixels ahead: lines so far apart are fetched by no processor of its own accord.
inline void ahead(const float* p, Int step) { __builtin_prefetch(p + 16 * step); }
inline void ahead_to_write(const float* p, Int step) { __builtin_prefetch(p + 16 * step, 1); }

// Some channels of an input, side's or x's, and where they stand among the outputs: so many times, so far apart.
struct Block {
  bool side;
  Int channel, lanes, times, out[2];  // out: in front of x's channels, behind them
};
std::vector<Block> cut(const Job& j) {
  std::vector<Block> blocks;
  for (bool side : {true, false})
    for (Int c = 0, n = side ? (j.copies ? j.side : 0) : j.C; c < n;) {
      const Int lanes = n - c >= LANES ? LANES : n - c >= LANES / 2 ? LANES / 2 : 1, before = j.copies * j.side;
      blocks.push_back({side, c, lanes, side ? 2 * j.copies : 1, {side ? c : before + c, before + j.C + c}});
      c += lanes;
    }
  return blocks;
}
// d[r, c] = sum of w[a, b] * s[r + a, c + b]: pixels of L channels, rows and pixels of s and d so many numbers apart.
template <int A, int B, int L> void correlate(const float* s, Int s_row, Int s_step, const float* weights, float* d, Int d_row,
                                              Int d_step, Int rows, Int columns, Int tap_row) {
  Vec<L> w[A * B];
  for (int t = 0; t < A * B; t++) w[t] = vec<L>(weights + t * L);
  for (Int r = 0; r < rows; r++)
    for (Int c = 0; c < columns; c++) {
      const float* p = s + r * s_row + c * s_step;
      Vec<L> sum = w[0] * vec<L>(p);
#pragma GCC unroll 25
      for (int t = 1; t < A * B; t++)
        sum += w[t] * vec<L>(p + t / B * tap_row + t % B * L);
      vec<L>(d + r * d_row + c * d_step) = sum;
    }
}
// What threads share of a depthwise step: its weights by tap [K * K, O], and sums over their own pictures.
struct Depthwise {
  const Job& j;
  const Channels in;  // what a raw x lacks
  const Int threads = omp_get_max_threads(), groups = j.N < threads ? 1 : threads;  // groups of pictures
  const std::vector<Block> blocks = cut(j);
  Int few;  // pictures of which all channels stay in cache
  std::vector<float> weights;
  explicit Depthwise(const Job& j) : j(j), in(j.in, j.in_activation, j.C), weights(j.O * j.K * j.K) {
    transpose(j.w, j.O, j.K * j.K, weights.data());
    few = std::max<Int>((1 << 17) / (j.H * j.W * (j.C + j.side) + j.area() * j.O), 1);
  }
};

// L channels of the planes: x padded by zeros, and the gradient of y with a border that is wide enough for all taps.
template <int K, int L> struct Planes {
  using V = Vec<L>;
  static constexpr int T = K * K, PAD = K / 2;
  const Depthwise& d;
  const Job& j;
  const Int H = j.H, W = j.W, S = j.S, OH = j.oh(), OW = j.ow(), PW = W + 2 * PAD, reach = (K - 1) / S;
  const Int GW = OW + 2 * reach;
  const Room x = zeros_for((H + 2 * PAD) * PW * L), g = zeros_for((OH + 2 * reach) * GW * L);
  const Room room = room_for(std::max(H * W, OH * OW) * L);
  explicit Planes(const Depthwise& d) : d(d), j(d.j) {}
  float* inside() { return &g[(reach * GW + reach) * L]; }  // the first pixel of the gradient within its border

  void load(const Block& b, Int n) {
    const bool raw = !b.side && j.in.mean;
    const Int step = b.side ? j.side : j.C;
    const float* s = (b.side ? j.side_x : j.x) + n * H * W * step + b.channel;
    float* to = &x[(PAD * PW + PAD) * L];
    if (!raw)
      for (Int r = 0; r < H; r++, s += W * step, to += PW * L)
        for (Int c = 0; c < W; c++) ahead(s + c * step, step), vec<L>(to + c * L) = vec<L>(s + c * step);
    else decide_kind(j.in_activation, [=, this](auto kind) mutable {
      const V k = vec<L>(&d.in.k[b.channel]), o = vec<L>(&d.in.o[b.channel]);
      const float high = d.in.high;
      for (Int r = 0; r < H; r++, s += W * step, to += PW * L)
        for (Int c = 0; c < W; c++) {
          ahead(s + c * step, step);
          vec<L>(to + c * L) = activate<kind>(V(k * vec<L>(s + c * step) + o), high);
        }
    });
  }
  Int place(const Block& b, Int time) const {  // of its channels among the outputs
    return time < j.copies || !b.side ? b.out[0] + time * j.side : b.out[1] + (time - j.copies) * j.side;
  }

  std::vector<float> taps(const Block& b) const {  // weights of its channels: [time, tap, lane]
    std::vector<float> w(b.times * T * L);
    for (Int i = 0; i < b.times * T; i++) vec<L>(&w[i * L]) = vec<L>(&d.weights[i % T * j.O + place(b, i / T)]);
    return w;
  }
  // What one channel vector of the outputs has summed up: around a value near the mean, so that float loses no digits.
  struct Sums {
    V m{}, sum{}, square{};
    Int count = 0;
    void begin(const float* first, Int n) {
      for (Int i = 0; i < n; i++) m += vec<L>(first + i * L);
      m *= 1.f / n;
    }
    void add(const V& v) { const V off = v - m; sum += off, square += off * off; }
    void flush(Totals& totals, Int c) {
      for (int i = 0; i < L; i++) {
        totals.a[c + i] += sum[i] + (double)count * m[i];
        totals.b[c + i] += square[i] + 2. * m[i] * sum[i] + (double)count * m[i] * m[i];
      }
      sum = square = V{}, count = 0;
    }
  };
  void forward(const Block& b, Int begin, Int end, Totals& totals) {
    std::vector<Sums> sums(b.times);
    const std::vector<float> w = taps(b);
    for (Int n = begin; n < end; n++) {
      load(b, n);
      for (Int time = 0; time < b.times; time++) {
        correlate<K, K, L>(x.get(), S * PW * L, S * L, &w[time * T * L], room.get(), OW * L, L, OH, OW, PW * L);
        const Int c = place(b, time);
        float* y = j.y + n * OH * OW * j.O + c;
        Sums s = sums[time];
        if (n == begin) s.begin(room.get(), std::min<Int>(OH * OW, 64));
        for (Int i = 0; i < OH * OW; i++) {
          ahead_to_write(y + i * j.O, j.O);
          s.add(vec<L>(y + i * j.O) = vec<L>(&room[i * L]));
        }
        s.count += OH * OW;
        if (s.count >= 1024 || n == end - 1) s.flush(totals, c);
        sums[time] = s;
      }
    }
  }

  // Gradient of y for output channels from c on, of picture n, within its border; `f` as in output_gradient.
  void load_gradient(const Channels& f, Int c, Int n) {
    const Int at = n * OH * OW * j.O + c;
    const V k = vec<L>(&f.k[c]), o = vec<L>(&f.o[c]), m = vec<L>(&f.mean[c]);
    const V fs = vec<L>(&f.from_sum[c]), fd = vec<L>(&f.from_dot[c]);
    const V share = j.gpool ? vec<L>(j.gpool + n * j.O + c) * (1.f / (OH * OW)) : V{};
    decide_kind(f.activation, [&](auto kind) {
      const float *gz = j.gz ? j.gz + at : nullptr, *y = j.y + at, high = f.high;
      float* to = inside();
      for (Int r = 0, i = 0; r < OH; r++, to += GW * L)
        for (Int q = 0; q < OW; q++, i++) {
          const V v = vec<L>(y + i * j.O);
          ahead(y + i * j.O, j.O);
          if (gz) ahead(gz + i * j.O, j.O);
          V from = gz ? V(vec<L>(gz + i * j.O) + share) : share;
          if (kind != NONE) from *= slope<kind>(V(k * v + o), high);
          vec<L>(to + q * L) = k * (from - fs - (v - m) * fd);
        }
    });
  }
  void weight_gradient(float* acc) const {  // adds to it
    V a[T];
    for (int t = 0; t < T; t++) a[t] = vec<L>(acc + t * L);
    const float* from = &g[(reach * GW + reach) * L];
    for (Int r = 0; r < OH; r++)
      for (Int c = 0; c < OW; c++) {
        const V v = vec<L>(from + (r * GW + c) * L);
        const float* p = &x[(r * S * PW + c * S) * L];
#pragma GCC unroll 25
        for (int t = 0; t < T; t++) a[t] += v * vec<L>(p + (t / K * PW + t % K) * L);
      }
    for (int t = 0; t < T; t++) vec<L>(acc + t * L) = a[t];
  }
  // The taps that meet input pixels with remainder (fy, fx) lead back from the output's gradient to those pixels.
  template <int A, int B> void phase(Int fy, Int fx, const float* w) {
    float back[A * B * L];
    for (int t = 0; t < A * B; t++)
      vec<L>(back + t * L) = vec<L>(w + ((fy + S * (A - 1 - t / B)) * K + fx + S * (B - 1 - t % B)) * L);
    const Int y = ((fy - PAD) % S + S) % S, x = ((fx - PAD) % S + S) % S;  // the first of those pixels
    const Int q = (y + PAD) / S - (A - 1) + reach, p = (x + PAD) / S - (B - 1) + reach;
    correlate<A, B, L>(&g[(q * GW + p) * L], GW * L, L, back, &room[(y * W + x) * L], S * W * L, S * L, divide_up(H - y, S),
                       divide_up(W - x, S), GW * L);
  }
  void input_gradient(const float* w) {  // into room
    if (S == 1) return phase<K, K>(0, 0, w);
    phase<(K + 1) / 2, (K + 1) / 2>(0, 0, w), phase<(K + 1) / 2, K / 2>(0, 1, w);
    phase<K / 2, (K + 1) / 2>(1, 0, w), phase<K / 2, K / 2>(1, 1, w);
  }
  // Writes or adds room to the gradient of a block's channels; that of a raw x passes its activation, and sums are made.
  void store(const Block& b, Int n, bool add, V& sum, V& dot) {
    const Int step = b.side ? j.side : j.C, at = n * H * W * step + b.channel;
    float* to = (b.side ? j.gside : j.gx) + at;
    if (b.side || !j.in.mean) {
      for (Int i = 0; i < H * W; i++, to += step) vec<L>(to) = add ? V(vec<L>(to) + vec<L>(&room[i * L])) : vec<L>(&room[i * L]);
      return;
    }
    const V k = vec<L>(&d.in.k[b.channel]), o = vec<L>(&d.in.o[b.channel]), m = vec<L>(&d.in.mean[b.channel]);
    V s{}, q{};
    decide_kind(j.in_activation, [&](auto kind) {
      const float *raw = j.x + at, *from = room.get(), high = d.in.high;
      for (Int i = 0; i < H * W; i++, to += step, raw += step) {
        ahead(raw, step), ahead_to_write(to, step);
        const V v = vec<L>(raw), gradient = vec<L>(from + i * L) * slope<kind>(V(k * v + o), high);
        vec<L>(to) = gradient, s += gradient, q += gradient * (v - m);
      }
    });
    sum += s, dot += q;
  }
  void backward(const Block& b, Int begin, Int end, const Channels& f, float* gw, Totals& totals) {
    const std::vector<float> w = taps(b);
    std::vector<float> acc(w.size());
    for (Int n = begin; n < end; n++) {
      if (gw) load(b, n);
      V sum{}, dot{};
      for (Int time = 0; time < b.times; time++) {
        load_gradient(f, place(b, time), n);
        if (gw) weight_gradient(&acc[time * T * L]);
        if (!(b.side ? j.gside : j.gx)) continue;
        input_gradient(&w[time * T * L]);
        store(b, n, j.accumulate || time, sum, dot);
      }
      for (int i = 0; i < L && !b.side && j.in.mean; i++) totals.a[b.channel + i] += sum[i], totals.b[b.channel + i] += dot[i];
    }
    for (Int i = 0; gw && i < b.times * T; i++)
      for (int l = 0; l < L; l++) gw[(place(b, i / T) + l) * T + i % T] += acc[i * L + l];
  }
};
template <int K, int L> struct Lazy {  // a thread's planes, made when it needs some
  std::unique_ptr<Planes<K, L>> planes;
  Planes<K, L>& of(const Depthwise& d) {
    if (!planes) planes.reset(new Planes<K, L>(d));
    return *planes;
  }
};
// Calls f(planes, block, group, first and last picture) for all groups of pictures, a few pictures at a time, and for
// all blocks of channels.
template <int K, class F> void each_block(const Depthwise& d, F f) {
#pragma omp parallel
  {
    Lazy<K, LANES> full;
    Lazy<K, LANES / 2> half;
    Lazy<K, 1> one;
    const Int all = d.blocks.size(), parts = d.groups > 1 ? 1 : all;  // few pictures: threads share their channels
#pragma omp for schedule(static)
    for (Int i = 0; i < parts * d.groups; i++) {
      const Int group = i % d.groups, end = (group + 1) * d.j.N / d.groups;
      for (Int n = group * d.j.N / d.groups; n < end; n += d.few)
        for (Int k = i / d.groups * (all / parts); k < (i / d.groups + 1) * (all / parts); k++) {
          const Block& b = d.blocks[k];
          const Int last = std::min(n + d.few, end);
          if (b.lanes == LANES) f(full.of(d), b, group, n, last);
          else if (b.lanes == 1) f(one.of(d), b, group, n, last);
          else f(half.of(d), b, group, n, last);
        }
    }
  }
}
template <class F> void each_block(const Depthwise& d, F f) { d.j.K == 3 ? each_block<3>(d, f) : each_block<5>(d, f); }

void depthwise_forward(const Job& j) {
  const Depthwise d(j);
  AllTotals all(d.groups, Totals(j.O));
  each_block(d, [&](auto& planes, const Block& b, Int group, Int begin, Int end) { planes.forward(b, begin, end, all[group]); });
  statistics(j, &joined(all));
  finish(j);
}

void depthwise_backward(const Job& j) {
  const Depthwise d(j);
  const Channels channels = output_gradient(j);
  const Int size = j.O * j.K * j.K;
  std::vector<float> others(j.gw ? (d.groups - 1) * size : 0);  // a weight gradient for each group; the first in place
  std::fill_n(j.gw, j.gw ? size : 0, 0.f);
  AllTotals all(d.groups, Totals(j.C));
  each_block(d, [&](auto& planes, const Block& b, Int group, Int begin, Int end) {
    float* const gw = !j.gw || !group ? j.gw : &others[(group - 1) * size];
    planes.backward(b, begin, end, channels, gw, all[group]);
  });
  for (Int i = 0; j.gw && i < (d.groups - 1) * size; i++) j.gw[i % size] += others[i];
  if (j.in_gbeta) store_gradients(j, joined(all));
}

// dense convolution: pointwise, and any other as pointwise over what lies under its taps ----------------------------
// The rows (pixels) are cut into panels that stay in cache.
struct Dense {
  const Job& j;
  const bool pointwise = j.K == 1 && j.S == 1;
  const Int T = j.K * j.K, I = j.C * T, O = j.O, area = j.area(), rows = j.rows(), threads = omp_get_max_threads();
  const Channels in;
  Int height, count;     // of a panel, and panels
  std::vector<float> w;  // weights as [O, taps, C], where the tensor has [O, C, taps]
  explicit Dense(const Job& j) : j(j), in(j.in, j.in_activation, j.C) {
    const Int fitting = std::clamp<Int>((1 << 18) / (I + O), 256, 2048);
    height = std::min(fitting, std::max<Int>(divide_up(rows, threads), 16));
    const Int unit = j.factor || !pointwise ? (j.factor ? area : j.ow()) : 1;  // not to be cut
    height = std::max<Int>(height / unit, 1) * unit, count = divide_up(rows, height);
    if (T > 1 && !j.planar) reorder(j.w, (w.resize(O * I), w.data()), j.C, T);
  }
  void reorder(const float* from, float* to, Int a, Int b) const {  // [O, a, b] to [O, b, a]
    for (Int o = 0; o < O; o++) transpose(from + o * a * b, a, b, to + o * a * b);
  }
  const float* weights() const { return w.empty() ? j.w : w.data(); }
  Int first(Int panel) const { return panel * height; }
  Int size(Int panel) const { return std::min(height, rows - first(panel)); }
  // Calls f(numbers of x, numbers of the row under the taps, how many) for what lies under the taps of row `row`, piece
  // by piece; x is -1 where that is padding.
  template <class F> void each_tap(Int row, F f) const {
    const Int n = row / area, oy = row % area / j.ow(), ox = row % j.ow(), pad = j.K / 2;
    const Int left = ox * j.S - pad, low = std::max<Int>(-left, 0), high = std::min(j.K, j.W - left);
    for (Int ky = 0; ky < j.K; ky++) {
      const Int y = oy * j.S + ky - pad, at = ky * j.K * j.C;
      if (y < 0 || y >= j.H) { f(-1, at, j.K * j.C); continue; }
      if (low) f(-1, at, low * j.C);
      f(((n * j.H + y) * j.W + left + low) * j.C, at + low * j.C, (high - low) * j.C);
      if (high < j.K) f(-1, at + high * j.C, (j.K - high) * j.C);
    }
  }
  // A panel's input as a matrix of `size` rows, or of that many columns where x is planar.
  const float* input(Int panel, float* room) const {
    const Int at = first(panel), n = size(panel);
    if (j.planar) return planes(at, n, room);
    if (pointwise && !j.in.mean) return j.x + at * I;
    if (pointwise) return apply(in, j.x + at * I, room, n, j.factor, area, at), room;
    for (Int r = 0; r < n; r++)
      each_tap(at + r, [=, d = room + r * I](Int x, Int to, Int size) {
        if (x < 0) std::fill_n(d + to, size, 0.f);
        else if (j.in.mean) apply(in, j.x + x, d + to, size / j.C);
        else std::copy_n(j.x + x, size, d + to);
      });
    return room;
  }
  const float* planes(Int at, Int n, float* room) const {
    float* d = room;
    for (Int i = 0, ow = j.ow(), oh = j.oh(); i < I; i++) {
      const Int ky = i / j.K % j.K - j.K / 2, kx = i % j.K - j.K / 2;
      const Int low = std::min(divide_up(std::max<Int>(-kx, 0), j.S), ow);
      const Int high = std::clamp(divide_up(std::max<Int>(j.W - kx, 0), j.S), low, ow);
      for (Int r = at / ow; r < (at + n) / ow; r++, d += ow) {
        const Int y = r % oh * j.S + ky;
        const float* s = j.x + ((r / oh * j.C + i / T) * j.H + y) * j.W + kx;
        std::fill_n(d, ow, 0.f);
        for (Int c = low; c < high && y >= 0 && y < j.H; c++) d[c] = s[c * j.S];
      }
    }
    return room;
  }
};
// Adds the sums of rows of y and of their squares: made around values near the means, so that float loses no digits.
void batch_sums(const Channels& c, const float* y, Int rows, Totals& totals) {
  std::vector<float> m(c.repeat * c.C);
  Totals few(c.C);
  for (Int n; rows > 0; rows -= n, y += n * c.C) {
    n = std::min(Totals::FEW, rows);
    if (!totals.n) few.add(c, std::min<Int>(n, 32), false, [&](Int row, Int n, float* a, float*) {
      each(n, [=, s = y + row * c.C](Int i) { a[i] += s[i]; });
    });
    for (Int i = 0; i < c.repeat * c.C; i++)
      m[i] = totals.n ? totals.a[i % c.C] / totals.n : few.a[i % c.C] / std::min<Int>(n, 32);
    std::fill(few.a.begin(), few.a.end(), 0), std::fill(few.b.begin(), few.b.end(), 0);
    few.add(c, n, false, [&, m = m.data()](Int row, Int n, float* a, float* b) {
      each(n, [=, s = y + row * c.C](Int i) { const float off = s[i] - m[i]; a[i] += off, b[i] += off * off; });
    });
    for (Int i = 0; i < c.C; i++) {
      const double shift = m[i];
      totals.a[i] += few.a[i] + n * shift, totals.b[i] += few.b[i] + 2 * shift * few.a[i] + n * shift * shift;
    }
    totals.n += n;
  }
}

void dense_forward(const Job& j) {
  const Dense d(j);
  const Int I = d.I, O = d.O;
  const Channels plain(Finish{}, NONE, O);
  AllTotals all(j.norm == BATCH ? d.threads : 0, Totals(O));
#pragma omp parallel
  {
    const Room room = room_for(d.height * I);
#pragma omp for schedule(static)
    for (Int i = 0; i < d.count; i++) {
      const Int n = d.size(i);
      const float* x = d.input(i, room.get());
      float* y = j.y + d.first(i) * O;
      dnnl_sgemm(j.planar ? 'T' : 'N', 'T', n, O, I, 1, x, j.planar ? n : I, d.weights(), I, 0, y, O);
      if (j.norm == BATCH) batch_sums(plain, y, n, all[omp_get_thread_num()]);
    }
  }
  statistics(j, all.empty() ? nullptr : &joined(all));
  finish(j);
}

void dense_backward(const Job& j) {
  const Dense d(j);
  const Int I = d.I, O = d.O, size = O * I;
  const Channels channels = output_gradient(j);
  const bool spread = !d.pointwise && j.gx;  // the gradient of what lies under the taps is added to that of x
  if (spread && !j.accumulate) std::fill_n(j.gx, j.N * j.H * j.W * j.C, 0.f);
  const Room ordered = room_for(d.w.empty() ? 0 : size);  // the weight gradient, taps in front of channels
  float* const total = d.w.empty() ? j.gw : ordered.get();
  const Room others = room_for(j.gw ? (d.threads - 1) * size : 0);  // that of each thread but the first
  AllTotals all(j.in_gbeta ? d.threads : 0, Totals(j.C));
  std::fill_n(j.gfactor, j.gfactor ? j.N * I : 0, 0.f);
#pragma omp parallel
  {
    const Int thread = omp_get_thread_num();
    const Room room = room_for(d.height * I), g = room_for(d.height * O);
    float* const gw = thread ? &others[(thread - 1) * size] : total;
    bool begun = false;
#pragma omp for schedule(static) nowait
    for (Int i = 0; i < d.count; i++) {
      const Int n = d.size(i), at = d.first(i);
      gradient(j, channels, at, n, g.get());
      if (j.gw) {
        const float* x = d.input(i, room.get());
        dnnl_sgemm('T', j.planar ? 'T' : 'N', O, I, n, 1, g.get(), O, x, j.planar ? n : I, begun, gw, I);
        begun = true;
      }
      if (!j.gx) continue;
      float* const gx = spread ? room.get() : j.gx + at * I;
      dnnl_sgemm('N', 'N', n, I, O, 1, g.get(), O, d.weights(), I, !spread && j.accumulate, gx, I);
      for (Int r = 0; spread && r < n; r++)
        d.each_tap(at + r, [=, s = gx + r * I](Int x, Int from, Int size) {
          if (x >= 0) each(size, [=, to = j.gx + x, s = s + from](Int k) { to[k] += s[k]; });
        });
      if (j.in_gbeta && !spread) pass(d.in, j.x + at * I, gx, n, all[thread]);
      if (j.factor) decide_kind(j.in_activation, [&](auto kind) {
        for (Int r = 0; r < n; r++) {
          const Int picture = (at + r) / d.area * I;
          const float *k = d.in.k.data(), *o = d.in.o.data(), *x = j.x + (at + r) * I, *f = j.factor + picture, high = d.in.high;
          float *row = gx + r * I, *gf = j.gfactor ? j.gfactor + picture : nullptr;
          each(I, [=](Int c) { gf[c] += row[c] * activate<kind>(k[c] * x[c] + o[c], high), row[c] *= f[c]; });
        }
      });
    }
    if (j.gw && !begun) std::fill_n(gw, size, 0.f);
#pragma omp barrier
#pragma omp for schedule(static)
    for (Int k = 0; k < (j.gw ? size : 0); k++)
      for (Int i = 0; i < d.threads - 1; i++) total[k] += others[i * size + k];
  }
  if (j.gw && !d.w.empty()) d.reorder(total, j.gw, d.T, j.C);
  if (!j.in_gbeta) return;
  if (spread) in_pieces(j.N * j.H * j.W, [&](Int t, Int first, Int rows) { pass(d.in, j.x + first * j.C, j.gx + first * j.C, rows, all[t]); });
  store_gradients(j, joined(all));
}

// optimiser -----------------------------------------------------------------------------------------------------
// SGD with momentum for n numbers, in Paddle's order of operations; a fused multiply-add would round otherwise.
__attribute__((optimize("fp-contract=off"))) void update(Int n, float* __restrict p, const float* __restrict g,
                                                         float* __restrict v, float decay, float rate, float momentum,
                                                         bool nesterov) {
#pragma STDC FP_CONTRACT OFF
  for (Int i = 0; i < n; i++) {
    const float gradient = decay != 0 ? p[i] * decay + g[i] : g[i], velocity = v[i] * momentum + gradient;
    v[i] = velocity;
    p[i] -= (nesterov ? gradient + velocity * momentum : velocity) * rate;
  }
}

// -------------------------------------------------------------------------------------------------------------------
void run_forward(const Job& j) {
  if (j.kind == ENTER) transpose_pictures(j, j.x, j.z, true);
  if (j.kind == LEAVE) transpose_pictures(j, j.x, j.z, false);
  if (j.kind == POOL) pool_forward(j);
  if (j.kind == DENSE) dense_forward(j);
  if (j.kind == DEPTHWISE) depthwise_forward(j);
}
void run_backward(const Job& j) {  // that of a pool is done by the step whose planes it has
  if (j.kind == ENTER && j.gx) transpose_pictures(j, j.gz, j.gx, false);
  if (j.kind == LEAVE) transpose_pictures(j, j.gz, j.gx, true);
  if (j.rectify) rectify_gradient(j);
  if (j.kind == DENSE) dense_backward(j);
  if (j.kind == DEPTHWISE) depthwise_backward(j);
}
}  // namespace: below is what kernels.py calls
extern "C" int layer_bytes() { return sizeof(Layer); }  // compared with the fields that kernels.py fills
extern "C" int tensors_bytes() { return sizeof(Tensors); }
extern "C" void forward(Int count, const Layer* l, const Tensors* t, const Numbers* n) {
  for (Int i = 0; i < count; i++) run_forward({l[i], t[i], n[i]});
}
extern "C" void backward(Int count, const Layer* l, const Tensors* t, const Numbers* n) {
  for (Int i = count; i-- > 0;) run_backward({l[i], t[i], n[i]});
}
extern "C" void momentum(Int count, float* const* p, const float* const* g, float* const* v, const Int* sizes,
                         const float* decays, const float* rates, float rate, float momentum, int nesterov) {
#pragma omp parallel
  for (Int i = 0, t = omp_get_thread_num(), threads = omp_get_num_threads(); i < count; i++) {
    const Int begin = sizes[i] * t / threads, n = sizes[i] * (t + 1) / threads - begin;
    update(n, p[i] + begin, g[i] + begin, v[i] + begin, decays[i], rate * rates[i], momentum, nesterov);
  }
}
