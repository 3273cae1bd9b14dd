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
#include <numeric>
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
// are repeated, so that a line of `repeat` rows is long, and of whole vectors where that is possible.
struct Channels {
  static constexpr Int LONG = 256, VECTOR = 16;
  Int C, repeat = 1, activation;
  float high;
  std::vector<float> k, o, mean, from_sum, from_dot;  // from_...: what batch statistics add to the gradient
  Channels(const Finish& f, Int activation, Int C) : C(C), activation(activation) {
    high = activation == RELU6 ? 6 : INFINITY;
    const Int unit = VECTOR / std::gcd(C, VECTOR);
    if (C < LONG) repeat = divide_up(divide_up(LONG, C), unit) * unit;
    for (auto* v : {&k, &o, &mean, &from_sum, &from_dot}) v->assign(repeat * C, 0);
    for (Int c = 0; c < C; c++) {
      mean[c] = f.mean ? f.mean[c] : 0;
      k[c] = (f.mean ? f.scale[c] : 1) * (f.gamma ? f.gamma[c] : 1), o[c] = (f.beta ? f.beta[c] : 0) - mean[c] * k[c];
    }
    for (auto* v : {&k, &o, &mean}) fill(*v);
  }
  void fill(std::vector<float>& v) const {  // the other rows of a line as the first
    for (Int i = 1; i < repeat; i++) std::copy_n(v.begin(), C, v.begin() + i * C);
  }
  // Calls f(row, n): n numbers from `row` on; `single` rows where something differs from row to row.
  template <class F> void each_line(Int rows, bool single, F f) const {
    for (Int r = 0, step = single ? 1 : repeat; r < rows; r += step) f(r, std::min(step, rows - r) * C);
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
  explicit Totals(Int C = 0) : a(C), b(C) {}
  // Calls f(row, n, a, b), which adds to n sums of each kind, for all rows.
  template <class F> void add(const Channels& c, Int rows, bool single, F f) {
    few.resize(2 * c.repeat * c.C);
    float *const fa = few.data(), *const fb = fa + c.repeat * c.C;
    for (Int at = 0; at < rows; at += FEW) {
      std::fill_n(fa, 2 * c.repeat * c.C, 0.f);
      c.each_line(std::min(FEW, rows - at), single, [&](Int row, Int n) { f(at + row, n, fa, fb); });
      for (Int r = 0; r < c.repeat; r++)
        for (Int i = 0; i < c.C; i++) a[i] += fa[r * c.C + i], b[i] += fb[r * c.C + i];
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
  for (Int c = 0; j.norm == BATCH && c < j.O; c++)
    channels.from_sum[c] = j.gbeta[c] / j.rows(), channels.from_dot[c] = j.ggamma[c] / j.rows() * j.out.scale[c];
  channels.fill(channels.from_sum), channels.fill(channels.from_dot);
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
// Adds the sums of rows of y and of their squares: made around values near the means, so that float loses no digits.
void batch_sums(const Channels& c, const float* y, Int rows, Totals& totals) {
  std::vector<float> m(c.repeat * c.C);
  Totals few(c.C);
  for (Int n; rows > 0; rows -= n, y += n * c.C) {
    n = std::min(Totals::FEW, rows);
    if (!totals.n) few.add(c, std::min<Int>(n, 32), false, [&](Int row, Int n, float* a, float*) {
      each(n, [=, s = y + row * c.C](Int i) { a[i] += s[i]; });
    });
    for (Int i = 0; i < c.C; i++) m[i] = totals.n ? totals.a[i] / totals.n : few.a[i] / std::min<Int>(n, 32);
    c.fill(m);
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
// Pictures are cut into bands of rows of which all channels stay in cache (small pictures: several whole ones at once).
// What a band reads is laid out as [picture, row, pixel, channel] with a border of zeros; then a vector of channels at a
// time goes over its pixels.

// Where the first pixel is, and how many numbers apart pictures, rows and pixels are.
struct View {
  float* p;
  Int picture, row, step;
  View channels(Int c) const { return {p + c, picture, row, step}; }
  float* at(Int n, Int r, Int c) const { return p + n * picture + r * row + c * step; }
};
struct Extent { Int pictures, rows, columns; };
inline void ahead_to_write(const float* p, Int step) { __builtin_prefetch(p + 16 * step, 1); }

// d[n, r, c] = or += the sum of w[a, b] * s[n, S r + a, S c + b], for L channels of A x B taps.
template <int A, int B, int L, bool ADDS> void correlate(const View& s, Int S, const float* weights, Int w_step, const View& d,
                                                         const Extent& e) {
  Vec<L> w[A * B];
  for (int t = 0; t < A * B; t++) w[t] = vec<L>(weights + t * w_step);
  for (Int n = 0; n < e.pictures; n++)
    for (Int r = 0; r < e.rows; r++) {
      const float* p = s.at(n, S * r, 0);
      float* to = d.at(n, r, 0);
      for (Int c = 0; c < e.columns; c++, p += S * s.step, to += d.step) {
        ahead_to_write(to, d.step);
        Vec<L> sum = w[0] * vec<L>(p);
#pragma GCC unroll 25
        for (int t = 1; t < A * B; t++)
          sum += w[t] * vec<L>(p + t / B * s.row + t % B * s.step);
        vec<L>(to) = ADDS ? Vec<L>(vec<L>(to) + sum) : sum;
      }
    }
}
// gw[a, b] += the sum of g[n, r, c] * x[n, S r + a, S c + b], for L channels of K x K taps.
template <int K, int L> void correlate_gradient(const View& x, Int S, const View& g, float* gw, Int w_step, const Extent& e) {
  Vec<L> a[K * K];
  for (int t = 0; t < K * K; t++) a[t] = vec<L>(gw + t * w_step);
  for (Int n = 0; n < e.pictures; n++)
    for (Int r = 0; r < e.rows; r++)
      for (Int c = 0; c < e.columns; c++) {
        const Vec<L> v = vec<L>(g.at(n, r, c));
        const float* p = x.at(n, S * r, S * c);
#pragma GCC unroll 25
        for (int t = 0; t < K * K; t++) a[t] += v * vec<L>(p + t / K * x.row + t % K * x.step);
      }
  for (int t = 0; t < K * K; t++) vec<L>(gw + t * w_step) = a[t];
}
// Calls f(vector length, channel) for n channels.
template <class F> void each_vector(Int n, F f) {
  Int c = 0;
  for (; c + LANES <= n; c += LANES) f(std::integral_constant<int, LANES>(), c);
  for (; c + LANES / 2 <= n; c += LANES / 2) f(std::integral_constant<int, LANES / 2>(), c);
  for (; c < n; c++) f(std::integral_constant<int, 1>(), c);
}

// What threads share of a depthwise step.
struct Depthwise {
  const Job& j;
  const Int pad = j.K / 2, halo = j.S == 1 ? pad : (pad + 1) / 2;  // rows beside a band whose gradient it needs
  const Int side = j.copies ? j.side : 0, threads = omp_get_max_threads();
  const Channels in;           // what a raw x lacks
  Int height, bands, pictures; // output rows of a band, bands of a picture, pictures at once
  std::vector<float> weights;  // by tap: [K * K, O]
  explicit Depthwise(const Job& j) : j(j), in(j.in, j.in_activation, j.C), weights(j.O * j.K * j.K) {
    transpose(j.w, j.O, j.K * j.K, weights.data());
    const Int room = 1 << 16, row = j.S * j.W * (j.C + side) + j.ow() * j.O, oh = j.oh();
    bands = divide_up(oh, std::clamp<Int>(room / row, 1, oh)), height = divide_up(oh, bands), bands = divide_up(oh, height);
    pictures = std::clamp<Int>(bands > 1 ? 1 : room / 2 / (row * oh), 1, divide_up(j.N, threads));
  }
  Int count() const { return divide_up(j.N, pictures) * bands; }
};

template <int K> struct Band {  // a thread's, one after the other
  static constexpr int T = K * K;
  const Depthwise& d;
  const Job& j;
  const Int OH = j.oh(), OW = j.ow(), PW = j.W + 2 * d.pad, GW = OW + 2 * d.halo;
  const Int in_rows = (d.height - 1) * j.S + K, g_rows = d.height + 2 * d.halo;
  const Room x = zeros_for(d.pictures * in_rows * PW * j.C), side = zeros_for(d.pictures * in_rows * PW * d.side), g;
  Int last = -2, n, q;  // number of the band; its first picture and output row
  bool follows;         // the band before in the same picture, whose last rows are this one's first
  Extent e;
  Band(const Depthwise& d, bool backward) : d(d), j(d.j), g(zeros_for(backward * d.pictures * g_rows * GW * j.O)) {}

  void go_to(Int i) {
    n = i / d.bands * d.pictures, q = i % d.bands * d.height, follows = q && i == last + 1, last = i;
    e = {std::min(d.pictures, j.N - n), std::min(d.height, OH - q), OW};
  }
  // Calls f(where a row lies in the room, its number in the tensor), or fills with zeros where the tensor has none. What
  // the band before has `kept`, its last rows, is moved.
  template <class F> void each_row(float* room, Int rows, Int kept, Int first, Int of, Int line, Int border, Int width,
                                   F f) const {
    if (follows) std::copy_n(room + (rows - kept) * line, kept * line, room);
    for (Int p = 0; p < e.pictures; p++, room += rows * line)
      for (Int i = follows ? kept : 0; i < rows; i++) {
        float* to = room + i * line + border;
        if (first + i < 0 || first + i >= of) std::fill_n(to, width, 0.f);
        else f(to, (n + p) * of + first + i);
      }
  }
  void load() {
    const Int C = j.C, W = j.W, first = q * j.S - d.pad;
    each_row(x.get(), in_rows, K - j.S, first, j.H, PW * C, d.pad * C, W * C, [&](float* to, Int row) {
      if (j.in.mean) apply(d.in, j.x + row * W * C, to, W);
      else std::copy_n(j.x + row * W * C, W * C, to);
    });
    if (d.side)
      each_row(side.get(), in_rows, K - j.S, first, j.H, PW * d.side, d.pad * d.side, W * d.side, [&](float* to, Int row) {
        std::copy_n(j.side_x + row * W * d.side, W * d.side, to);
      });
  }
  void load_gradient(const Channels& f) {  // of y; `f` as in output_gradient
    each_row(g.get(), g_rows, 2 * d.halo, q - d.halo, OH, GW * j.O, d.halo * j.O, OW * j.O, [&](float* to, Int row) {
      gradient(j, f, row * OW, OW, to);
    });
  }
  View view_x() const { return {x.get(), in_rows * PW * j.C, PW * j.C, j.C}; }
  View view_side() const { return {side.get(), in_rows * PW * d.side, PW * d.side, d.side}; }
  View view_g(Int row, Int column) const {
    return {&g[(row * GW + column) * j.O], g_rows * GW * j.O, GW * j.O, j.O};
  }
  // Calls f(whether it is side, copy, first channel of the outputs) for every time that an input is read.
  template <class F> void each_source(F f) const {
    for (Int time = 0; time < j.copies; time++) f(true, time, time * d.side);
    f(false, 0, j.copies * d.side);
    for (Int time = 0; time < j.copies; time++) f(true, j.copies + time, (j.copies + time) * d.side + j.C);
  }

  void forward(Totals& totals) {
    load();
    float* const y = j.y + (n * OH + q) * OW * j.O;
    const View out{y, OH * OW * j.O, OW * j.O, j.O};
    each_source([&](bool from_side, Int, Int first) {
      const View in = from_side ? view_side() : view_x();
      each_vector(in.step, [&](auto lanes, Int c) {
        correlate<K, K, lanes, false>(in.channels(c), j.S, &d.weights[first + c], j.O, out.channels(first + c), e);
      });
    });
    if (j.norm != BATCH) return;
    const Channels plain(Finish{}, NONE, j.O);
    for (Int p = 0; p < e.pictures; p++) batch_sums(plain, y + p * out.picture, e.rows * OW, totals);
  }

  void weight_gradient(float* gw) const {  // adds to it, [K * K, O]
    const View out = view_g(d.halo, d.halo);
    each_source([&](bool from_side, Int, Int first) {
      const View in = from_side ? view_side() : view_x();
      each_vector(in.step, [&](auto lanes, Int c) {
        correlate_gradient<K, lanes>(in.channels(c), j.S, out.channels(first + c), gw + first + c, j.O, e);
      });
    });
  }
  // The taps that meet input pixels with remainder (fy, fx) lead back from the output's gradient to those pixels.
  template <int A, int B, int L> void phase(Int fy, Int fx, const float* w, Int o, const View& to, bool adds) const {
    float back[A * B * L];
    for (int t = 0; t < A * B; t++)
      vec<L>(back + t * L) = vec<L>(w + ((fy + j.S * (A - 1 - t / B)) * K + fx + j.S * (B - 1 - t % B)) * j.O);
    const Int S = j.S, y = ((fy - d.pad) % S + S) % S, x = ((fx - d.pad) % S + S) % S;  // the first of those pixels
    const View from = view_g((y + d.pad) / S - (A - 1) + d.halo, (x + d.pad) / S - (B - 1) + d.halo).channels(o);
    const View d_{to.at(0, y, x), to.picture, S * to.row, S * to.step};
    const Extent size{e.pictures, divide_up(rows_in() - y, S), divide_up(j.W - x, S)};
    if (adds) correlate<A, B, L, true>(from, 1, back, L, d_, size);
    else correlate<A, B, L, false>(from, 1, back, L, d_, size);
  }
  Int rows_in() const { return std::min((q + e.rows) * j.S, j.H) - q * j.S; }  // input rows whose gradient the band makes
  template <int L> void input_gradient(const float* w, Int o, const View& to, bool adds) const {
    constexpr int M = (K + 1) / 2, F = K / 2;
    if (j.S == 1) return phase<K, K, L>(0, 0, w, o, to, adds);
    phase<M, M, L>(0, 0, w, o, to, adds), phase<M, F, L>(0, 1, w, o, to, adds);
    phase<F, M, L>(1, 0, w, o, to, adds), phase<F, F, L>(1, 1, w, o, to, adds);
  }
  void backward(const Channels& f, float* gw, Totals& totals) {
    load_gradient(f);
    if (gw) load(), weight_gradient(gw);
    each_source([&](bool from_side, Int time, Int first) {
      float* const to = from_side ? j.gside : j.gx;
      const Int C = from_side ? d.side : j.C, line = j.W * C;
      if (!to) return;
      const View out{to + (n * j.H + q * j.S) * line, j.H * line, line, C};
      const bool raw = !from_side && j.in.mean;  // its gradient passes its activation, and sums are made
      each_vector(C, [&](auto lanes, Int c) {
        input_gradient<lanes>(&d.weights[first + c], first + c, out.channels(c), !raw && (j.accumulate || time));
      });
      for (Int p = 0; raw && p < e.pictures; p++)
        pass(d.in, j.x + (out.p - j.gx) + p * out.picture, out.p + p * out.picture, rows_in() * j.W, totals);
    });
  }
};
// Calls f(band, number of the thread) for all bands.
template <int K, class F> void each_band(const Depthwise& d, bool backward, F f) {
#pragma omp parallel
  {
    Band<K> band(d, backward);
#pragma omp for schedule(static)
    for (Int i = 0; i < d.count(); i++) band.go_to(i), f(band, omp_get_thread_num());
  }
}
template <class F> void each_band(const Depthwise& d, bool backward, F f) {
  d.j.K == 3 ? each_band<3>(d, backward, f) : each_band<5>(d, backward, f);
}

void depthwise_forward(const Job& j) {
  const Depthwise d(j);
  AllTotals all(d.threads, Totals(j.O));
  each_band(d, false, [&](auto& band, Int thread) { band.forward(all[thread]); });
  statistics(j, &joined(all));
  finish(j);
}

void depthwise_backward(const Job& j) {
  const Depthwise d(j);
  const Channels channels = output_gradient(j);
  const Int T = j.K * j.K, size = j.O * T;
  std::vector<float> gw(j.gw ? d.threads * size : 0);  // of each thread, by tap
  AllTotals all(d.threads, Totals(j.C));
  each_band(d, true, [&](auto& band, Int thread) { band.backward(channels, j.gw ? &gw[thread * size] : nullptr, all[thread]); });
  for (Int i = size; j.gw && i < d.threads * size; i++) gw[i % size] += gw[i];
  if (j.gw) transpose(gw.data(), T, j.O, j.gw);
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
    const Int fitting = std::clamp<Int>((1 << 17) / (I + O), 128, 2048);
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
// Planar RGB pictures under 3 x 3 taps: the 27 weights of a vector of channels stay in registers, and no matrix is made.
struct Stem {
  static constexpr int T = 27;
  const Job& j;
  const Int W = j.W + 2, OW = j.ow(), OH = j.oh(), O = j.O;
  const Room lines = zeros_for(9 * W);  // what an output row reads: [C, 3, W] with a border of zeros
  std::vector<float> w, gw;             // by tap: [27, O]
  static bool suits(const Job& j) { return j.planar && j.C == 3 && j.K == 3; }
  explicit Stem(const Job& j) : j(j), w(T * O), gw(T * O) { transpose(j.w, O, T, w.data()); }
  void load(Int row) {
    for (Int i = 0; i < 9; i++) {
      const Int y = row % OH * j.S + i % 3 - 1;
      if (y < 0 || y >= j.H) std::fill_n(&lines[i * W + 1], j.W, 0.f);
      else std::copy_n(j.x + ((row / OH * 3 + i / 3) * j.H + y) * j.W, j.W, &lines[i * W + 1]);
    }
  }
  // Calls f(vector length, channel) for all rows of n pixels; `at` is the first pixel of the row among them.
  template <class F> void each_row(Int first, Int n, F f) {
    for (Int at = 0; at < n; at += OW) {
      load((first + at) / OW);
      each_vector(O, [&](auto lanes, Int o) { f(lanes, o, at); });
    }
  }
  void forward(Int first, Int n, float* y) {
    each_row(first, n, [&](auto lanes, Int o, Int at) {
      Vec<lanes> k[T];
      for (int t = 0; t < T; t++) k[t] = vec<lanes>(&w[t * O + o]);
      float* to = y + at * O + o;
      for (const float *p = lines_at(0), *end = lines_at(OW); p < end; p += j.S, to += O) {
        Vec<lanes> sum = k[0] * p[0];
#pragma GCC unroll 27
        for (int t = 1; t < T; t++) sum += k[t] * p[t / 3 * W + t % 3];
        vec<lanes>(to) = sum;
      }
    });
  }
  void gradient(Int first, Int n, const float* g) {
    each_row(first, n, [&](auto lanes, Int o, Int at) {
      Vec<lanes> a[T];
      for (int t = 0; t < T; t++) a[t] = vec<lanes>(&gw[t * O + o]);
      const float* from = g + at * O + o;
      for (const float *p = lines_at(0), *end = lines_at(OW); p < end; p += j.S, from += O) {
        const Vec<lanes> v = vec<lanes>(from);
#pragma GCC unroll 27
        for (int t = 0; t < T; t++) a[t] += v * p[t / 3 * W + t % 3];
      }
      for (int t = 0; t < T; t++) vec<lanes>(&gw[t * O + o]) = a[t];
    });
  }
  const float* lines_at(Int pixel) const { return &lines[pixel * j.S]; }
};

void dense_forward(const Job& j) {
  const Dense d(j);
  const bool direct = Stem::suits(j);
  const Int I = d.I, O = d.O;
  const Channels plain(Finish{}, NONE, O);
  AllTotals all(j.norm == BATCH ? d.threads : 0, Totals(O));
#pragma omp parallel
  {
    const Room room = room_for(d.height * I);
    const std::unique_ptr<Stem> stem(direct ? new Stem(j) : nullptr);
#pragma omp for schedule(static)
    for (Int i = 0; i < d.count; i++) {
      const Int n = d.size(i);
      float* y = j.y + d.first(i) * O;
      if (stem) stem->forward(d.first(i), n, y);
      else {
        const float* x = d.input(i, room.get());
        dnnl_sgemm(j.planar ? 'T' : 'N', 'T', n, O, I, 1, x, j.planar ? n : I, d.weights(), I, 0, y, O);
      }
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
  const bool direct = Stem::suits(j), spread = !d.pointwise && j.gx;  // what lies under taps: its gradient is added to gx
  // Neighbouring panels add to the same rows of gx: threads take panels that do not, in turns.
  const Int turns = spread && d.threads > 1 ? 1 + divide_up(std::max<Int>(j.K - j.S, 0), d.height / j.ow() * j.S) : 1;
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
    const std::unique_ptr<Stem> stem(direct ? new Stem(j) : nullptr);
    bool begun = false;
    for (Int turn = 0; turn < turns; turn++)
#pragma omp for schedule(static)
    for (Int i = turn; i < d.count; i += turns) {
      const Int n = d.size(i), at = d.first(i);
      gradient(j, channels, at, n, g.get());
      if (stem && j.gw) stem->gradient(at, n, g.get());
      else if (j.gw) {
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
    if (j.gw && stem) transpose(stem->gw.data(), I, O, gw);
    else if (j.gw && !begun) std::fill_n(gw, size, 0.f);
#pragma omp barrier
#pragma omp for schedule(static)
    for (Int k = 0; k < (j.gw ? size : 0); k++)
      for (Int i = 0; i < omp_get_num_threads() - 1; i++) total[k] += others[i * size + k];
  }
  if (j.gw && !d.w.empty()) d.reorder(total, j.gw, d.T, j.C);
  if (!j.in_gbeta) return;
  if (spread) in_pieces(j.N * j.H * j.W, [&](Int t, Int first, Int rows) {
    pass(d.in, j.x + first * j.C, j.gx + first * j.C, rows, all[t]);
  });
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
