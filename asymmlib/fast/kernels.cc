// The CPU kernels behind asymmlib.fast: one convolution, its batch norm and its activation in one call.
// Tensors are float32, contiguous, [N, C, H, W]. Known are depthwise convolutions (3x3, 5x5, stride 1 or 2) and dense
// ones (1x1, or any odd side where the input needs no gradient), all with padding K / 2. A depthwise one may read a
// second input, `side`, as `copies` times side, then x, then `copies` times side, as if they had been concatenated.
// An input may be `raw`: the convolution's output of the layer before, to which this layer applies that layer's batch
// norm and activation as it reads. Then the gradient that goes back has passed that activation, and its sums are made.
// No function keeps state. All loops are split statically and every sum has a fixed order: equal input and equal thread
// count give equal bits. (A dynamic schedule would do more harm: Paddle ships an old libiomp5, which hands out wrong
// iterations to code compiled for GCC's libgomp.)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>
#include <omp.h>
using Int = int64_t;
extern "C" int dnnl_sgemm(char trans_a, char trans_b, Int m, Int n, Int k, float alpha, const float* a, Int lda,
                          const float* b, Int ldb, float beta, float* c, Int ldc);

namespace {
enum Activation : Int { NONE, RELU, RELU6, HARDSWISH };
enum Norm : Int { PLAIN, RUNNING, BATCH };  // no batch norm (bias at most), by running or by batch statistics

// What batch norm and activation of a layer need; gamma and beta may be missing, beta alone is a bias.
struct Finish { const float *gamma, *beta, *mean, *scale; };  // scale: 1 / sqrt(variance + eps)
// The two structs that kernels.py fills, field by field in this order.
struct Layer {
  Int N, C, H, W, side, copies, O, K, S, activation, norm, depthwise;
  Int raw, in_activation;  // whether x is raw, and the activation it still lacks
  Int known, accumulate;   // backward: gz has passed the activation, ggamma and gbeta are given; add to the input's gradient
  Int oh() const { return (H - 1) / S + 1; }  // K is odd and the padding K / 2
  Int ow() const { return (W - 1) / S + 1; }
  Int area() const { return oh() * ow(); }
};
struct Tensors {
  const float *x, *side_x, *w;
  Finish in, out;
  float *running_mean, *running_var;
  const float *factor, *residual;  // [N, C] that a raw input is multiplied by; what is added to the output
  float *y, *z, *pool;             // convolution's output; the layer's, or the means of its planes [N, O], or neither
  float *gz, *gpool;                // gradients; all but gz may be missing
  const float* base;  // what the gradient of a depthwise layer's side (of x without side) is added to
  float *gx, *gside, *gw, *ggamma, *gbeta, *gfactor, *in_ggamma, *in_gbeta;
};
Int divide_up(Int a, Int b) { return (a + b - 1) / b; }
using Room = std::unique_ptr<float[]>;  // not zeroed
Room room_for(Int n) { return Room(new float[n]); }

// batch norm and activation -------------------------------------------------------------------------------------
inline float clip(float v, float low, float high) { return std::min(std::max(v, low), high); }

// Calls f with what is known only at run time as constants of the compiler's, so that no inner loop has to ask.
template <class F> void decide(bool value, F f) { value ? f(std::true_type()) : f(std::false_type()); }

// Batch norm of one channel as k * y + o, and its activation: none, hard-swish, or clipping to 0..high.
struct Channel {
  float k, o, mean, from_sum = 0, from_dot = 0, high;  // from_...: what batch statistics add to the gradient
  Int activation;
  Channel(const Finish& f, Int activation, Int c) : mean(f.mean[c]), activation(activation) {
    k = f.scale[c] * (f.gamma ? f.gamma[c] : 1), o = (f.beta ? f.beta[c] : 0) - mean * k;
    high = activation == RELU6 ? 6 : INFINITY;
  }
  float activate(Int kind, float y) const {
    const float v = k * y + o;
    return kind == NONE ? v : kind == HARDSWISH ? v * clip(v + 3, 0, 6) * (1 / 6.f) : clip(v, 0, high);
  }
  float slope(Int kind, float y) const {
    const float v = k * y + o;
    if (kind == HARDSWISH) return v <= -3 ? 0.f : v >= 3 ? 1.f : (2 * v + 3) * (1 / 6.f);
    return kind == NONE || (v > 0 && v < high) ? 1.f : 0.f;
  }
  template <class F> void constant(F f) const {
    if (activation == NONE) f(std::integral_constant<Int, NONE>());
    else decide(activation == HARDSWISH, [&](auto swish) { f(std::integral_constant<Int, swish ? HARDSWISH : RELU>()); });
  }
};
struct Job : Layer, Tensors {
  double eps, momentum;
  Channel input(Int c) const { return Channel(in, in_activation, c); }
  Channel output(Int c) const { return Channel(out, known ? NONE : activation, c); }
  float share(Int plane) const { return gpool ? gpool[plane] / area() : 0; }  // of the plane mean's gradient, per pixel
};

// Calls f(kind, flag, i, a, b) for n pixels i of a channel, with the activation and a flag as constants; returns the sums
// that f has made in a and b.
struct Two { float a, b; };
template <class F> Two sweep(const Channel& channel, bool flag, Int n, F f) {
  Two sums;
  channel.constant([&](auto kind) {
    decide(flag, [&](auto flag) {
      float a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
      for (Int i = 0; i < n; i++) f(kind, flag, i, a, b);
      sums = {a, b};
    });
  });
  return sums;
}
// z = act(bn(y)) * factor + residual; y and z may be the same.
void apply(const Channel& c, const float* y, float* z, Int n, float factor = 1, const float* residual = nullptr) {
  sweep(c, residual, n, [=](auto kind, auto adds, Int i, float&, float&) {
    z[i] = c.activate(kind, y[i]) * factor + (adds ? residual[i] : 0.f);
  });
}
// Sum of act(bn(y)) * g; without g, of act(bn(y)).
float total(const Channel& c, const float* y, const float* g, Int n) {
  return sweep(c, g, n, [=](auto kind, auto weighted, Int i, float& a, float&) {
    a += c.activate(kind, y[i]) * (weighted ? g[i] : 1.f);
  }).a;
}
// Gradient of y from index `at` on; `share` is added to that of z.
void gradient(const Job& j, const Channel& c, Int at, Int n, float share, float* gy) {
  sweep(c, false, n, [=, y = j.y + at, gz = j.gz + at](auto kind, auto, Int i, float&, float&) {
    gy[i] = c.k * ((gz[i] + share) * c.slope(kind, y[i]) - c.from_sum - (y[i] - c.mean) * c.from_dot);
  });
}
// The sums over one channel that gamma's and beta's gradients are made of.
struct Dots {
  double sum = 0, dot = 0;
  // Adds those of n pixels, whose gradient g passes the activation on the way (and is left so in `to`, if there is one).
  void add(const Channel& c, const float* y, const float* g, Int n, float share = 0, float* to = nullptr) {
    const Two sums = sweep(c, to, n, [=](auto kind, auto keeps, Int i, float& a, float& b) {
      const float v = (g[i] + share) * c.slope(kind, y[i]);
      if (keeps) to[i] = v;
      a += v, b += v * (y[i] - c.mean);
    });
    sum += sums.a, dot += sums.b;
  }
  void store(float* ggamma, float* gbeta, float scale) const {
    if (gbeta) *gbeta = sum;
    if (ggamma) *ggamma = dot * scale;
  }
};
// First half of batch norm's gradient: gamma's and beta's, unless known, and what the second half needs of them.
Channel channel_gradient(const Job& j, Int c) {
  Channel channel = j.output(c);
  const Int area = j.area();
  float sum, dot, scale = j.out.scale[c];
  if (j.known) sum = j.gbeta[c], dot = j.ggamma[c];
  else {
    Dots dots;
    for (Int n = 0, at = c * area; n < j.N; n++, at += j.O * area)
      dots.add(channel, j.y + at, j.gz + at, area, j.share(n * j.O + c));
    dots.store(&dot, &sum, scale);
    dots.store(j.ggamma ? j.ggamma + c : nullptr, j.gbeta ? j.gbeta + c : nullptr, scale);
  }
  if (j.norm == BATCH) channel.from_sum = sum / (j.N * area), channel.from_dot = dot / (j.N * area) * scale;
  return channel;
}

// Count, sum and sum of squares: in double, out of blocks around a mean, so that float loses no digits.
struct Sums {
  double n = 0, total = 0, squares = 0;
  void add(const Sums& other) { n += other.n, total += other.total, squares += other.squares; }
  void add(const float* p, Int length) {
    for (const float* end = p + length; p < end; p += 1024) {
      const Int count = std::min<Int>(1024, end - p), few = std::min<Int>(64, count);
      const float m = n ? total / n : std::accumulate(p, p + few, 0.f) / few;  // near the mean is enough
      float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum, squares)
      for (Int i = 0; i < count; i++) sum += p[i] - m, squares += (p[i] - m) * (p[i] - m);
      add({(double)count, sum + (double)count * m, squares + 2. * m * sum + (double)count * m * m});
    }
  }
};
// What channel c is normalised by; batch statistics update the running ones as Paddle does (biased variance).
void statistics(const Job& j, Int c, const Sums& s = Sums()) {
  double mean = j.norm == RUNNING ? j.running_mean[c] : 0, variance = j.norm == RUNNING ? j.running_var[c] : 0;
  if (j.norm == BATCH) {
    mean = s.total / s.n, variance = std::max(0., s.squares / s.n - mean * mean);
    j.running_mean[c] = j.momentum * j.running_mean[c] + (1 - j.momentum) * mean;
    j.running_var[c] = j.momentum * j.running_var[c] + (1 - j.momentum) * variance;
  }
  ((float*)j.out.mean)[c] = mean, ((float*)j.out.scale)[c] = j.norm == PLAIN ? 1 : 1 / std::sqrt(variance + j.eps);
}

// depthwise convolution -----------------------------------------------------------------------------------------
constexpr int LANES = __BIGGEST_ALIGNMENT__ / sizeof(float);  // as many as the widest registers hold
typedef float Vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
inline Vec& vec(const float* p) { return *(Vec*)p; }
// Calls f(k) for k < n. Small planes, which are many, have rows that one instruction can do.
template <class F> inline void each_of(Int n, F f) {
  if (n == 4) for (int k = 0; k < 4; k++) f(k);
  else if (n == 8) for (int k = 0; k < 8; k++) f(k);
  else if (n == 16) for (int k = 0; k < 16; k++) f(k);
  else for (Int k = 0; k < n; k++) f(k);
}
inline void copy_row(const float* __restrict s, Int n, float* __restrict d) { each_of(n, [=](Int k) { d[k] = s[k]; }); }

// A plane is kept zero-padded and split into S x S phases (rows and columns by their remainder), so that every tap
// of the kernel is one constant offset into a flat array, whatever the stride. Taps of one phase lead back from the
// output's gradient to that phase of the input's.
struct Plane {
  Int H, W, K, S, pad, OH, OW, reach, PW, PH, phase, padded, bordered;
  Int taps[25], back[4][25], from[4][25], count[4] = {0, 0, 0, 0};
  explicit Plane(const Job& j) : H(j.H), W(j.W), K(j.K), S(j.S), pad(j.K / 2), OH(j.oh()), OW(j.ow()) {
    reach = (K - 1) / S;  // how far the taps go within a phase
    PW = OW + reach, PH = OH + reach, phase = PW * PH;
    padded = S * S * phase + 4 * LANES + PW;  // vectors may read and write past the end
    bordered = (OH + 2 * reach) * PW + 4 * LANES + PW;  // the output's gradient
    for (Int t = 0; t < K * K; t++) {
      const Int ky = t / K, kx = t % K, f = ky % S * S + kx % S, inner = ky / S * PW + kx / S;
      taps[t] = f * phase + inner, back[f][count[f]] = -inner, from[f][count[f]++] = t;
    }
  }
  // Calls f(pixel, even, odd) for each row: its first pixel, and where its pixels lie in the phases, every other one of
  // them side by side; with stride 1 all from `even` on.
  template <class F> void each_row(F f) const {
    for (Int y = 0; y < H; y++) {
      const Int row = (y + pad) % S * S * phase + (y + pad) / S * PW;
      f(y * W, row + pad % S * phase + pad / S, row + (pad + 1) % S * phase + (pad + 1) / S);
    }
  }
  void split(const float* x, float* to) const {  // the borders of `to` stay zero
    each_row([=, W = W, S = S](Int pixel, Int even, Int odd) {
      const float* __restrict s = x + pixel;
      float *__restrict e = to + even, *__restrict o = to + odd;
      if (S == 1) return copy_row(s, W, e);
      each_of(W / 2, [=](Int k) { e[k] = s[2 * k], o[k] = s[2 * k + 1]; });
      if (W % 2) e[W / 2] = s[W - 1];
    });
  }
  void join(const float* from, float* x, const float* base) const {  // x = base + from
    decide(base, [=, W = W, S = S](auto add) {
      each_row([=](Int pixel, Int even, Int odd) {
        const float *__restrict e = from + even, *__restrict o = from + odd;
        float* const d = x + pixel;
        const auto put = [=](Int k, float v) { d[k] = add ? base[pixel + k] + v : v; };
        if (S == 1) return each_of(W, [=](Int k) { put(k, e[k]); });
        each_of(W / 2, [=](Int k) { put(2 * k, e[k]), put(2 * k + 1, o[k]); });
        if (W % 2) put(W - 1, e[W / 2]);
      });
    });
  }
};

template <int T, int U> inline void correlate_at(const float* s, const Int* taps, const float* w, float* d) {
  Vec a[U];
  for (int u = 0; u < U; u++) a[u] = w[0] * vec(s + taps[0] + u * LANES);
#pragma GCC unroll 25
  for (int t = 1; t < T; t++)
    for (int u = 0; u < U; u++) a[u] += w[t] * vec(s + taps[t] + u * LANES);
  for (int u = 0; u < U; u++) vec(d + u * LANES) = a[u];
}
// d[i] = sum over t of w[t] * s[i + taps[t]] for i < n, where n >= LANES; the last vector overlaps the one before.
template <int T> void correlate_run(const float* s, const Int* taps, const float* w, float* d, Int n) {
  Int i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) correlate_at<T, 4>(s + i, taps, w, d + i);
  for (; i + LANES <= n; i += LANES) correlate_at<T, 1>(s + i, taps, w, d + i);
  if (i < n) correlate_at<T, 1>(s + n - LANES, taps, w, d + n - LANES);
}
// The same for rows: those of s lie `ss` apart, those of d `ds`. Narrow rows are done as one run with the gaps
// between them, into `room`, and copied from there.
template <int T> void correlate_rows(const float* s, Int ss, const Int* taps, const float* w, float* d, Int ds,
                                     Int rows, Int columns, float* room) {
  if (columns < LANES) correlate_run<T>(s, taps, w, room, std::max<Int>(rows * ss, LANES));
  for (Int r = 0; r < rows; r++)
    if (columns < LANES) copy_row(room + r * ss, columns, d + r * ds);
    else correlate_run<T>(s + r * ss, taps, w, d + r * ds, columns);
}
constexpr std::integer_sequence<int, 1, 2, 4, 6, 9, 25> TAPS;  // 3 x 3 and 5 x 5, or those of one phase
template <int... T, class... Rest> void correlate(std::integer_sequence<int, T...>, Int count, Rest... rest) {
  ((count == T ? correlate_rows<T>(rest...) : void()), ...);
}
// acc[t] += sum over i of g[i] * x[i + taps[t]]
template <int T> void dots(const float* g, const float* x, const Int* taps, Int n, Vec* acc) {
  Vec a[T];
  std::copy_n(acc, T, a);
  for (Int i = 0; i < n; i += LANES)
#pragma GCC unroll 25
    for (int t = 0; t < T; t++) a[t] += vec(g + i) * vec(x + i + taps[t]);
  std::copy_n(a, T, acc);
}

// The plane that output channel c of picture n reads, of the concatenation side..., x, side... (or its gradient).
template <class T> T* source(const Job& j, T* side, T* x, Int n, Int c) {
  const Int before = j.copies * j.side, area = j.H * j.W;
  if (c >= before && c < before + j.C) return x ? x + (n * j.C + c - before) * area : nullptr;
  return side ? side + (n * j.side + (c < before ? c : c - before - j.C) % j.side) * area : nullptr;
}

void depthwise_forward(const Job& j) {
  const Plane p(j);
  const Int T = j.K * j.K, area = j.area(), before = j.copies * j.side;
#pragma omp parallel
  {
    std::vector<float> padded(p.padded);
    const Room room = room_for(p.padded), plane = room_for(j.H * j.W);
#pragma omp for schedule(static)
    for (Int c = 0; c < j.O; c++) {
      const bool raw = j.raw && c >= before && c < before + j.C;
      Sums sums;
      for (Int n = 0; n < j.N; n++) {
        float* const y = j.y + (n * j.O + c) * area;
        const float* x = source(j, j.side_x, j.x, n, c);
        if (raw) apply(j.input(c - before), x, plane.get(), j.H * j.W);
        p.split(raw ? plane.get() : x, padded.data());
        correlate(TAPS, T, padded.data(), p.PW, p.taps, j.w + c * T, y, p.OW, p.OH, p.OW, room.get());
        if (j.norm == BATCH) sums.add(y, area);
      }
      statistics(j, c, sums);
      const Channel channel = j.output(c);
      for (Int i = c; i < j.N * j.O; i += j.O) {
        if (j.pool) j.pool[i] = total(channel, j.y + i * area, nullptr, area) / area;
        else if (j.z && (j.norm || j.out.beta)) apply(channel, j.y + i * area, j.z + i * area, area);
      }
    }
  }
}

void depthwise_backward(const Job& j) {
  const Plane p(j);
  const Int T = j.K * j.K, area = j.area(), before = j.copies * j.side;
#pragma omp parallel
  {
    std::vector<float> padded(p.padded), bordered(p.bordered);
    const Room parts = room_for(p.padded), room = room_for(p.padded), plane = room_for(j.H * j.W);
    float* const inside = &bordered[p.reach * p.PW + p.reach];  // the first pixel within the zero border
    const auto input_gradient = [&](const float* kernel, float* gx, const float* base) {
      for (Int f = 0; f < p.S * p.S; f++) {
        float w[25];
        for (Int i = 0; i < p.count[f]; i++) w[i] = kernel[p.from[f][i]];
        if (p.S == 1 && !base)  // straight into place
          return correlate(TAPS, T, inside + p.pad * (p.PW + 1), p.PW, p.back[f], w, gx, p.W, p.H, p.W, room.get());
        correlate(TAPS, p.count[f], inside, p.PW, p.back[f], w, &parts[f * p.phase], p.PW, p.PH, p.PW, room.get());
      }
      p.join(parts.get(), gx, base);
    };
    // Gradients of output channel c; `first`: no other has written to its input plane's gradient.
    const auto channel_backward = [&](Int c, bool raw, bool first) {
      const Channel channel = channel_gradient(j, c);
      Vec acc[25] = {};
      Dots sums;
      for (Int n = 0; n < j.N; n++) {
        const float share = j.share(n * j.O + c), *const x = source(j, j.side_x, j.x, n, c);
        gradient(j, channel, (n * j.O + c) * area, area, share, room.get());
        for (Int r = 0; r < p.OH; r++) copy_row(&room[r * p.OW], p.OW, inside + r * p.PW);
        if (j.gw) {
          if (raw) apply(j.input(c - before), x, plane.get(), j.H * j.W);
          p.split(raw ? plane.get() : x, padded.data());
          (T == 9 ? dots<9> : dots<25>)(inside, padded.data(), p.taps, p.OH * p.PW, acc);
        }
        if (float* gx = source(j, j.gside, j.gx, n, c)) {
          input_gradient(j.w + c * T, gx, first ? raw ? nullptr : source(j, j.base, j.side ? nullptr : j.base, n, c) : gx);
          if (raw) sums.add(j.input(c - before), x, gx, j.H * j.W, 0, gx);
        }
      }
      for (Int t = 0; j.gw && t < T; t++)
        j.gw[c * T + t] = std::accumulate((float*)&acc[t], (float*)&acc[t + 1], 0.f);
      if (raw) sums.store(j.in_ggamma + c - before, j.in_gbeta + c - before, j.in.scale[c - before]);
    };
#pragma omp for schedule(static, 1)  // one by one: the planes of side come first and take longer
    for (Int i = 0; i < j.side + j.C; i++) {
      if (i >= j.side) channel_backward((j.copies - 1) * j.side + i, j.raw, true);
      for (Int k = 0; i < j.side && k < 2 * j.copies; k++)
        channel_backward(k * j.side + i + (k < j.copies ? 0 : j.C), false, k == 0);
    }
  }
}

// dense convolution: pointwise and stem -------------------------------------------------------------------------
// The columns (pixels) are cut into panels that stay in cache: some whole pictures, or a piece of each of one.
struct Matrix {
  float* data;
  Int stride;
  float* at(Int row, Int column) const { return data + row * stride + column; }
};
struct Panel {
  Int n, pictures, first, columns;  // columns of each picture
  Int width() const { return pictures * columns; }
  // Calls f(channel, place in the tensor [N, channels, area], column in the panel's matrix [channels, width]).
  template <class F> void each_row(Int channels, Int area, F f) const {
    for (Int i = 0; i < pictures; i++)
      for (Int c = 0; c < channels; c++) f(c, ((n + i) * channels + c) * area + first, i * columns);
  }
  // Its matrix: the tensor's own memory where one picture is enough, else `room`, from which `store` brings it back.
  Matrix view(const float* tensor, Int channels, Int area, const Room& room) const {
    return pictures > 1 ? Matrix{room.get(), width()} : Matrix{(float*)tensor + n * channels * area + first, area};
  }
  void store(const Matrix& from, float* tensor, Int channels, Int area, bool add = false) const {
    each_row(pictures > 1 ? channels : 0, area, [&](Int c, Int at, Int column) {
      const float* s = from.at(c, column);
      for (Int i = 0; i < columns; i++) tensor[at + i] = add ? tensor[at + i] + s[i] : s[i];
    });
  }
};
struct Panels {
  const Job& j;
  const bool pointwise = j.K == 1 && j.S == 1;
  const Int area = j.area(), I = j.C * j.K * j.K, O = j.O;
  Int groups, piece, pieces, count;
  explicit Panels(const Job& j) : j(j) {
    const Int unit = pointwise ? 1 : j.ow(), threads = omp_get_max_threads();
    const Int even = divide_up(j.N * area, threads);  // columns, so that every thread has some
    const Int fitting = std::clamp<Int>((1 << 18) / (I + O), 256, 2048);
    const Int wanted = std::max(unit, std::min(fitting, std::max<Int>(even, 16)));
    groups = pointwise ? divide_up(j.N, std::clamp<Int>(wanted / area, 1, j.N)) : j.N;
    groups = std::min(j.N, divide_up(groups, threads) * threads);  // of pictures, as many for every thread
    piece = divide_up(area / unit, divide_up(area, wanted)) * unit;
    pieces = divide_up(area, piece), count = groups * pieces;
  }
  Int width() const { return divide_up(j.N, groups) * piece; }
  Panel operator[](Int i) const {
    const Int group = i / pieces, n = group * j.N / groups, first = i % pieces * piece;
    return {n, (group + 1) * j.N / groups - n, first, std::min(piece, area - first)};
  }
  // A panel's input as a matrix [I, width]: every pixel under every tap (im2col).
  Matrix input(const Panel& p, const Room& room) const {
    const Matrix to{room.get(), p.width()};
    if (pointwise && p.pictures == 1 && !j.raw) return p.view(j.x, I, area, room);
    if (pointwise) p.each_row(I, area, [&](Int c, Int at, Int column) {
      if (j.raw) apply(j.input(c), j.x + at, to.at(c, column), p.columns, j.factor ? j.factor[at / area] : 1);
      else std::copy_n(j.x + at, p.columns, to.at(c, column));
    });
    float* d = room.get();
    for (Int i = 0, ow = j.ow(); !pointwise && i < I; i++) {
      const Int ky = i / j.K % j.K - j.K / 2, kx = i % j.K - j.K / 2;
      const Int low = std::min(divide_up(std::max<Int>(-kx, 0), j.S), ow);
      const Int high = std::clamp(divide_up(std::max<Int>(j.W - kx, 0), j.S), low, ow);
      for (Int r = p.first / ow; r < (p.first + p.columns) / ow; r++, d += ow) {
        const Int y = r * j.S + ky;
        const float* s = j.x + ((p.n * j.C + i / (j.K * j.K)) * j.H + y) * j.W + kx;
        std::fill_n(d, ow, 0.f);
        for (Int c = low; c < high && y >= 0 && y < j.H; c++) d[c] = s[c * j.S];
      }
    }
    return to;
  }
};

void dense_forward(const Job& j) {
  const Panels panels(j);
  const Int area = panels.area, I = panels.I, O = j.O;
  std::vector<Sums> sums(omp_get_max_threads() * O);  // a row for each thread
  const auto finish = [&](Int c, Int at, Int n) {
    if (j.z) apply(j.output(c), j.y + at, j.z + at, n, 1, j.residual ? j.residual + at : nullptr);
  };
  for (Int c = 0; j.norm != BATCH && c < O; c++) statistics(j, c);
#pragma omp parallel
  {
    const Room x_room = room_for(I * panels.width()), y_room = room_for(O * panels.width());
#pragma omp for schedule(static)
    for (Int i = 0; i < panels.count; i++) {
      const Panel p = panels[i];
      const Matrix x = panels.input(p, x_room), y = p.view(j.y, O, area, y_room);
      dnnl_sgemm('N', 'N', O, p.width(), I, 1, j.w, I, x.data, x.stride, 0, y.data, y.stride);
      for (Int c = 0; j.norm == BATCH && c < O; c++)
        sums[omp_get_thread_num() * O + c].add(y.at(c, 0), p.width());
      p.store(y, j.y, O, area);
      if (j.norm != BATCH) p.each_row(O, area, [&](Int c, Int at, Int) { finish(c, at, p.columns); });
    }
  }
  if (j.norm != BATCH) return;
  for (Int i = O; i < (Int)sums.size(); i++) sums[i % O].add(sums[i]);
  for (Int c = 0; c < O; c++) statistics(j, c, sums[c]);
#pragma omp parallel for schedule(static)
  for (Int k = 0; k < (j.z ? j.N * O : 0); k++) finish(k % O, k * area, area);
}

void dense_backward(const Job& j) {
  const Panels panels(j);
  const Int area = panels.area, I = panels.I, O = j.O, threads = omp_get_max_threads();
  const Int chunk = j.gfactor ? panels.pieces : divide_up(panels.count, threads);  // a picture's factors: one thread's
  std::vector<Channel> channels(O, j.output(0));
  const Room partial = room_for(j.gw ? threads * O * I : 0);  // a weight gradient for each thread
  std::vector<Dots> dots(j.in_gbeta ? threads * I : 0);      // likewise
  std::fill_n(j.gfactor, j.gfactor ? j.N * I : 0, 0.f);
#pragma omp parallel
  {
    const Room x_room = room_for(I * panels.width()), g = room_for(O * panels.width());
    Dots* const mine = dots.data() + omp_get_thread_num() * I;
    float* const my_gw = partial.get() + omp_get_thread_num() * O * I;
    bool begun = false;
#pragma omp for schedule(static)
    for (Int c = 0; c < O; c++) channels[c] = channel_gradient(j, c);
#pragma omp for schedule(static, chunk) nowait
    for (Int i = 0; i < panels.count; i++) {
      const Panel p = panels[i];
      const Int n = p.width();
      p.each_row(O, area, [&](Int c, Int at, Int to) { gradient(j, channels[c], at, p.columns, 0, &g[c * n + to]); });
      if (j.gw) {
        const Matrix x = panels.input(p, x_room);
        dnnl_sgemm('N', 'T', O, I, n, 1, g.get(), n, x.data, x.stride, begun, my_gw, I);
        begun = true;
      }
      if (!j.gx) continue;
      const Matrix gx = p.view(j.gx, I, area, x_room);
      const bool add = j.accumulate && p.pictures == 1;  // else when it is stored
      dnnl_sgemm('T', 'N', I, n, O, 1, j.w, I, g.get(), n, add, gx.data, gx.stride);
      p.each_row(j.raw ? I : 0, area, [&](Int c, Int at, Int column) {
        float* const row = gx.at(c, column);
        if (j.in_gbeta) return mine[c].add(j.input(c), j.x + at, row, p.columns, 0, row);
        j.gfactor[at / area] += total(j.input(c), j.x + at, row, p.columns);
        for (Int k = 0, plane = at / area; k < p.columns; k++) row[k] *= j.factor[plane];
      });
      p.store(gx, j.gx, I, area, j.accumulate);
    }
    if (j.gw && !begun) std::fill_n(my_gw, O * I, 0.f);
#pragma omp barrier
#pragma omp for schedule(static)
    for (Int k = 0; k < (j.gw ? O * I : 0); k++) {
      j.gw[k] = 0;
      for (Int i = 0, n = omp_get_num_threads(); i < n; i++) j.gw[k] += partial[i * O * I + k];
    }
  }
  for (Int c = 0; c < (j.in_gbeta ? I : 0); c++) {
    for (Int i = 1; i < threads; i++) dots[c].sum += dots[i * I + c].sum, dots[c].dot += dots[i * I + c].dot;
    dots[c].store(j.in_ggamma + c, j.in_gbeta + c, j.in.scale[c]);
  }
}
}  // namespace: below is what kernels.py calls
extern "C" int layer_bytes() { return sizeof(Layer); }  // compared with the fields that kernels.py fills
extern "C" int tensors_bytes() { return sizeof(Tensors); }
extern "C" void forward(const Layer* l, const Tensors* t, double eps, double momentum) {
  (l->depthwise ? depthwise_forward : dense_forward)({*l, *t, eps, momentum});
}
extern "C" void backward(const Layer* l, const Tensors* t) {
  (l->depthwise ? depthwise_backward : dense_backward)({*l, *t, 0, 0});
}
