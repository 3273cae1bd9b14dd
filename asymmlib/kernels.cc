// The CPU kernels behind asymmlib.fast: one convolution, its batch norm and its activation in one call.
//
// Tensors are float32, contiguous, [N, C, H, W]. Two kinds of convolution are known: depthwise (3x3 and 5x5, stride
// 1 or 2) and dense (1x1, or any odd side where the input needs no gradient), both with padding K / 2.
// A depthwise convolution may read a second input, `side`, as `copies` times side, then x, then `copies` times side,
// as if the three had been concatenated. No function keeps state. All loops are split statically and every sum has
// a fixed order: equal input and equal thread count give equal bits. (A dynamic schedule would do more harm: Paddle
// ships an old libiomp5, which hands out wrong iterations to code compiled for GCC's libgomp.)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <omp.h>

extern "C" int dnnl_sgemm(char trans_a, char trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                          int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

namespace {

enum Activation : int64_t { NONE, RELU, RELU6, HARDSWISH };
enum Norm : int64_t { PLAIN, RUNNING, BATCH };  // no batch norm (bias at most), by running or by batch statistics

// The two structs that fast.py fills, field by field in this order.
struct Layer {
  int64_t N, C, H, W, side, copies, O, K, S, activation, norm, depthwise;
  int64_t oh() const { return (H - 1) / S + 1; }  // K is odd and the padding K / 2
  int64_t ow() const { return (W - 1) / S + 1; }
  int64_t area() const { return oh() * ow(); }
  bool pointwise() const { return K == 1 && S == 1; }
};
struct Tensors {
  const float *x, *side_x, *w, *gamma, *beta;        // gamma and beta may be missing; beta alone is a bias
  float *running_mean, *running_var, *mean, *scale;  // scale: 1 / sqrt(variance + eps)
  float *y, *z;                                      // convolution's output, and the layer's; may be the same
  const float* gz;                                   // gradients from here on; gx, gside, gw may be missing
  float *gx, *gside, *gw, *ggamma, *gbeta;
};
struct Job : Layer, Tensors {
  double eps, momentum;
};
int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ------------------------------------------------------------------------------------------- vectors of floats
#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
inline Vec load(const float* p) { return *(const Vec*)p; }
inline void store(float* p, Vec v) { *(Vec*)p = v; }

// ------------------------------------------------------------------------------------- batch norm and activation
inline float clip6(float v) { return std::min(std::max(v, 0.f), 6.f); }
template <int A> inline float activate(float v) {
  if (A == RELU) return std::max(v, 0.f);
  if (A == RELU6) return clip6(v);
  if (A == HARDSWISH) return v * clip6(v + 3) * (1 / 6.f);
  return v;
}
template <int A> inline float slope(float v) {
  if (A == RELU) return v > 0 ? 1.f : 0.f;
  if (A == RELU6) return v > 0 && v < 6 ? 1.f : 0.f;
  if (A == HARDSWISH) return v <= -3 ? 0.f : v >= 3 ? 1.f : (2 * v + 3) * (1 / 6.f);
  return 1.f;
}
// Calls f with the activation as a constant of the compiler's.
template <class F> void by_activation(int64_t activation, F f) {
  if (activation == RELU) return f(std::integral_constant<int, RELU>());
  if (activation == RELU6) return f(std::integral_constant<int, RELU6>());
  if (activation == HARDSWISH) return f(std::integral_constant<int, HARDSWISH>());
  f(std::integral_constant<int, NONE>());
}

// Batch norm of one channel as k * y + o; from_sum and from_dot are what batch statistics add to its gradient.
struct Channel {
  float k = 1, o = 0, mean = 0, from_sum = 0, from_dot = 0;
  Channel() = default;
  Channel(const Job& j, int64_t c) : k(j.scale[c] * (j.gamma ? j.gamma[c] : 1.f)), mean(j.mean[c]) {
    o = (j.beta ? j.beta[c] : 0.f) - mean * k;
  }
};
// z = act(bn(y)) for n pixels of one channel; y and z may be the same.
void apply(const Job& j, Channel c, const float* y, float* z, int64_t n) {
  by_activation(j.activation, [=](auto A) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) z[i] = activate<A>(c.k * y[i] + c.o);
  });
}
// Gradient of y for n pixels of one channel from index `at` on.
void gradient(const Job& j, Channel c, int64_t at, int64_t n, float* gy) {
  const float *y = j.y + at, *gz = j.gz + at;
  by_activation(j.activation, [=](auto A) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const float g = gz[i] * slope<A>(c.k * y[i] + c.o);
      gy[i] = c.k * (g - c.from_sum - (y[i] - c.mean) * c.from_dot);
    }
  });
}
// Count, sum and sum of squares; in double, where the square of a float is exact.
struct Sums {
  double n = 0, total = 0, squares = 0;
  void add(const float* p, int64_t length) {
    double t = 0, s = 0;
#pragma omp simd reduction(+ : t, s)
    for (int64_t i = 0; i < length; i++) t += p[i], s += (double)p[i] * p[i];
    n += length, total += t, squares += s;
  }
};
// What channel c is normalised by; batch statistics update the running ones as Paddle does (biased variance).
void statistics(const Job& j, int64_t c, const Sums& s = Sums()) {
  double mean = j.norm == RUNNING ? j.running_mean[c] : 0, variance = j.norm == RUNNING ? j.running_var[c] : 0;
  if (j.norm == BATCH) {
    mean = s.total / s.n, variance = std::max(0., s.squares / s.n - mean * mean);
    j.running_mean[c] = j.momentum * j.running_mean[c] + (1 - j.momentum) * mean;
    j.running_var[c] = j.momentum * j.running_var[c] + (1 - j.momentum) * variance;
  }
  j.mean[c] = mean;
  j.scale[c] = j.norm == PLAIN ? 1 : 1 / std::sqrt(variance + j.eps);
}
// First half of batch norm's gradient: gamma's and beta's, and what the second half needs of them.
Channel channel_gradient(const Job& j, int64_t c) {
  Channel channel(j, c);
  double total = 0, dot = 0;
  const int64_t area = j.area();
  for (int64_t n = 0; n < j.N; n++) {
    const float *y = j.y + (n * j.O + c) * area, *gz = j.gz + (n * j.O + c) * area;
    by_activation(j.activation, [=, &total, &dot](auto A) {
      float a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
      for (int64_t i = 0; i < area; i++) {
        const float g = gz[i] * slope<A>(channel.k * y[i] + channel.o);
        a += g, b += g * (y[i] - channel.mean);
      }
      total += a, dot += b;
    });
  }
  if (j.gbeta) j.gbeta[c] = total;
  if (j.ggamma) j.ggamma[c] = dot * j.scale[c];
  if (j.norm != BATCH) return channel;
  channel.from_sum = total / (j.N * area);
  channel.from_dot = dot / (j.N * area) * j.scale[c] * j.scale[c];
  return channel;
}

// -------------------------------------------------------------------------------------------- depthwise
// A plane is kept zero-padded and split into S x S phases (rows and columns by their remainder), so that every tap
// of the kernel is one constant offset into a flat array, whatever the stride. Taps of one phase lead back from the
// output's gradient to that phase of the input's.
struct Plane {
  int64_t H, W, K, S, pad, OH, OW, reach, PW, PH, phase;
  int64_t taps[25], back[4][25], from[4][25], count[4] = {0, 0, 0, 0};
  explicit Plane(const Job& j) : H(j.H), W(j.W), K(j.K), S(j.S), pad(j.K / 2), OH(j.oh()), OW(j.ow()) {
    reach = (K - 1) / S;  // how far the taps go within a phase
    PW = OW + reach, PH = OH + reach, phase = PW * PH;
    for (int64_t t = 0; t < K * K; t++) {
      const int64_t ky = t / K, kx = t % K, f = ky % S * S + kx % S, inner = ky / S * PW + kx / S;
      taps[t] = f * phase + inner, back[f][count[f]] = -inner, from[f][count[f]++] = t;
    }
  }
  int64_t slack() const { return 4 * LANES + PW; }  // vectors may read and write past the end
  int64_t padded() const { return S * S * phase + slack(); }
  int64_t bordered() const { return (OH + 2 * reach) * PW + slack(); }  // the output's gradient
};
// Calls f(pixel, place, n): n pixels, S apart, from `pixel` on lie side by side from `place` on in the phases.
template <class F> void each_run(const Plane& p, F f) {
  for (int64_t i = 0; i < p.S * p.S; i++) {
    const int64_t top = (i / p.S + p.pad) % p.S, left = (i % p.S + p.pad) % p.S;  // this phase's first pixel
    const int64_t column = (left + p.pad) / p.S, n = std::min(divide_up(p.W - left, p.S), p.PW - column);
    for (int64_t y = top, row = (top + p.pad) / p.S; y < p.H && row < p.PH; y += p.S, row++)
      f(y * p.W + left, i * p.phase + row * p.PW + column, n);  // a last row may be seen by no output
  }
}
void split(const Plane& p, const float* x, float* to) {  // the borders of `to` stay zero
  each_run(p, [=](int64_t pixel, int64_t place, int64_t n) {
    if (p.S == 1) for (int64_t k = 0; k < n; k++) to[place + k] = x[pixel + k];
    else for (int64_t k = 0; k < n; k++) to[place + k] = x[pixel + 2 * k];
  });
}
void join(const Plane& p, const float* from, float* x, bool add) {
  if (!add) std::fill_n(x, p.H * p.W, 0.f);
  each_run(p, [=](int64_t pixel, int64_t place, int64_t n) {
    if (p.S == 1) for (int64_t k = 0; k < n; k++) x[pixel + k] += from[place + k];
    else for (int64_t k = 0; k < n; k++) x[pixel + 2 * k] += from[place + k];
  });
}

template <int T, int U> inline void correlate_at(const float* s, const int64_t* taps, const float* w, float* d) {
  Vec a[U];
  for (int u = 0; u < U; u++) a[u] = w[0] * load(s + taps[0] + u * LANES);
#pragma GCC unroll 25
  for (int t = 1; t < T; t++)
    for (int u = 0; u < U; u++) a[u] += w[t] * load(s + taps[t] + u * LANES);
  for (int u = 0; u < U; u++) store(d + u * LANES, a[u]);
}
// d[i] = sum over t of w[t] * s[i + taps[t]] for i < n, where n >= LANES; the last vector overlaps the one before.
template <int T> void correlate_run(const float* s, const int64_t* taps, const float* w, float* d, int64_t n) {
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) correlate_at<T, 4>(s + i, taps, w, d + i);
  for (; i < n; i += LANES) correlate_at<T, 1>(s + std::min(i, n - LANES), taps, w, d + std::min(i, n - LANES));
}
// The same for rows: those of s lie `ss` apart, those of d `ds`. Narrow rows are done as one run with the gaps
// between them, into `room`, and copied from there.
template <int T> void correlate_rows(const float* s, int64_t ss, const int64_t* taps, const float* w, float* d,
                                     int64_t ds, int64_t rows, int64_t columns, float* room) {
  if (columns < LANES) correlate_run<T>(s, taps, w, room, std::max<int64_t>(rows * ss, LANES));
  for (int64_t r = 0; r < rows; r++)
    if (columns < LANES) std::copy_n(room + r * ss, columns, d + r * ds);
    else correlate_run<T>(s + r * ss, taps, w, d + r * ds, columns);
}
template <class... Rest> void correlate(int64_t count, Rest... rest) {
  switch (count) {  // 9 and 25 taps, or those of one phase
    case 1: return correlate_rows<1>(rest...);
    case 2: return correlate_rows<2>(rest...);
    case 4: return correlate_rows<4>(rest...);
    case 6: return correlate_rows<6>(rest...);
    case 9: return correlate_rows<9>(rest...);
    case 25: return correlate_rows<25>(rest...);
  }
}
// acc[t] += sum over i of g[i] * x[i + taps[t]]
template <int T> void dots(const float* g, const float* x, const int64_t* taps, int64_t n, Vec* acc) {
  Vec a[T];
  std::copy_n(acc, T, a);
  for (int64_t i = 0; i < n; i += LANES) {
    const Vec v = load(g + i);
#pragma GCC unroll 25
    for (int t = 0; t < T; t++) a[t] += v * load(x + i + taps[t]);
  }
  std::copy_n(a, T, acc);
}

// The plane that output channel c of picture n reads, of the concatenation side..., x, side... (or its gradient).
template <class T> T* source(const Job& j, T* side, T* x, int64_t n, int64_t c) {
  const int64_t before = j.copies * j.side, area = j.H * j.W;
  if (c >= before && c < before + j.C) return x ? x + (n * j.C + c - before) * area : nullptr;
  return side ? side + (n * j.side + (c < before ? c : c - before - j.C) % j.side) * area : nullptr;
}

void depthwise_forward(const Job& j) {
  const Plane p(j);
  const int64_t T = j.K * j.K, area = j.area();
#pragma omp parallel
  {
    std::vector<float> padded(p.padded(), 0.f), room(p.phase + p.slack());
#pragma omp for schedule(static)
    for (int64_t c = 0; c < j.O; c++) {
      Sums sums;
      for (int64_t n = 0; n < j.N; n++) {
        float* y = j.y + (n * j.O + c) * area;
        split(p, source(j, j.side_x, j.x, n, c), padded.data());
        correlate(T, padded.data(), p.PW, p.taps, j.w + c * T, y, p.OW, p.OH, p.OW, room.data());
        if (j.norm == BATCH) sums.add(y, area);
      }
      statistics(j, c, sums);
      if (j.norm == PLAIN && j.activation == NONE && !j.beta) continue;
      for (int64_t at = c * area; at < j.N * j.O * area; at += j.O * area)
        apply(j, Channel(j, c), j.y + at, j.z + at, area);
    }
  }
}

// Buffers of one thread, and the gradients that it makes.
struct DepthwiseGradient {
  const Job& j;
  const Plane p;
  std::vector<float> padded, bordered, parts, room;
  float* inside;  // the first pixel within the zero border
  explicit DepthwiseGradient(const Job& j)
      : j(j), p(j), padded(p.padded(), 0.f), bordered(p.bordered(), 0.f), parts(p.padded()),
        room(p.phase + p.slack()), inside(bordered.data() + p.reach * p.PW + p.reach) {}
  // Those of output channel c, whose input plane's gradient other channels may have begun (`add`).
  void channel(int64_t c, bool add) {
    const Channel statistics = channel_gradient(j, c);
    const int64_t T = j.K * j.K;
    Vec acc[25] = {};
    for (int64_t n = 0; n < j.N; n++) {
      for (int64_t r = 0; r < p.OH; r++)
        gradient(j, statistics, (n * j.O + c) * j.area() + r * p.OW, p.OW, inside + r * p.PW);
      if (j.gw) {
        split(p, source(j, j.side_x, j.x, n, c), padded.data());
        (T == 9 ? dots<9> : dots<25>)(inside, padded.data(), p.taps, p.OH * p.PW, acc);
      }
      if (float* gx = source(j, j.gside, j.gx, n, c)) input(j.w + c * T, gx, add);
    }
    for (int64_t t = 0; j.gw && t < T; t++) {
      j.gw[c * T + t] = 0;
      for (int i = 0; i < LANES; i++) j.gw[c * T + t] += acc[t][i];
    }
  }
  void input(const float* kernel, float* gx, bool add) {
    float w[25];
    for (int64_t f = 0; f < p.S * p.S; f++) {
      for (int64_t i = 0; i < p.count[f]; i++) w[i] = kernel[p.from[f][i]];
      if (p.S == 1 && !add)  // straight into place
        return correlate(p.count[f], inside + p.pad * p.PW + p.pad, p.PW, p.back[f], w, gx, p.W, p.H, p.W,
                         room.data());
      correlate(p.count[f], inside, p.PW, p.back[f], w, parts.data() + f * p.phase, p.PW, p.PH, p.PW, room.data());
    }
    join(p, parts.data(), gx, add);
  }
};
void depthwise_backward(const Job& j) {
#pragma omp parallel
  {
    DepthwiseGradient gradient(j);
#pragma omp for schedule(static, 1)  // one by one: the planes of side come first and take longer
    for (int64_t i = 0; i < j.side + j.C; i++) {
      if (i >= j.side) gradient.channel((j.copies - 1) * j.side + i, false);
      for (int64_t k = 0; i < j.side && k < 2 * j.copies; k++)
        gradient.channel(k * j.side + i + (k < j.copies ? 0 : j.C), k > 0);
    }
  }
}

// ------------------------------------------------------------------------------- dense: pointwise and stem
// The columns (pixels) are cut into panels that stay in cache: some whole pictures, or a piece of each of one.
struct Panel {
  int64_t n, pictures, first, columns;  // columns of each picture
  int64_t width() const { return pictures * columns; }
  // Calls f(channel, place in the tensor [N, channels, area], place in the panel's matrix [channels, width]).
  template <class F> void each_row(int64_t channels, int64_t area, F f) const {
    for (int64_t i = 0; i < pictures; i++)
      for (int64_t c = 0; c < channels; c++) f(c, ((n + i) * channels + c) * area + first, c * width() + i * columns);
  }
};
struct Panels {
  const Job& j;
  int64_t group, piece, pieces, count;
  explicit Panels(const Job& j) : j(j) {
    const int64_t area = j.area(), unit = j.pointwise() ? 1 : j.ow();
    const int64_t even = divide_up(j.N * area, omp_get_max_threads());  // columns, so that every thread has some
    const int64_t fitting = std::clamp<int64_t>((1 << 18) / (j.C * j.K * j.K + j.O), 256, 2048);
    const int64_t wanted = std::max(unit, std::min(fitting, std::max<int64_t>(even, 16)));
    group = j.pointwise() ? std::clamp<int64_t>(wanted / area, 1, j.N) : 1;
    group = divide_up(j.N, divide_up(j.N, group));
    piece = divide_up(area / unit, divide_up(area, wanted)) * unit;
    pieces = divide_up(area, piece), count = divide_up(j.N, group) * pieces;
  }
  int64_t width() const { return group * piece; }
  Panel operator[](int64_t i) const {
    const int64_t n = i / pieces * group, first = i % pieces * piece;
    return {n, std::min(group, j.N - n), first, std::min(piece, j.area() - first)};
  }
};
// The panel's input as a matrix [C * K * K, width]: every pixel under every tap (im2col).
void input(const Job& j, const Panel& p, float* d) {
  if (j.pointwise())
    return p.each_row(j.C, j.area(), [&](int64_t, int64_t at, int64_t to) {
      std::copy_n(j.x + at, p.columns, d + to);
    });
  const int64_t ow = j.ow(), pad = j.K / 2;
  for (int64_t i = 0; i < j.C * j.K * j.K; i++) {
    const int64_t ky = i / j.K % j.K - pad, kx = i % j.K - pad;
    const int64_t low = std::min(divide_up(std::max<int64_t>(-kx, 0), j.S), ow);
    const int64_t high = std::clamp(divide_up(std::max<int64_t>(j.W - kx, 0), j.S), low, ow);
    for (int64_t r = p.first / ow; r < (p.first + p.columns) / ow; r++, d += ow) {
      const int64_t y = r * j.S + ky;
      std::fill_n(d, ow, 0.f);
      const float* s = j.x + ((p.n * j.C + i / (j.K * j.K)) * j.H + y) * j.W + kx;
      for (int64_t c = low; c < high && y >= 0 && y < j.H; c++) d[c] = s[c * j.S];
    }
  }
}

void dense_forward(const Job& j) {
  const int64_t area = j.area(), I = j.C * j.K * j.K, O = j.O;
  const Panels panels(j);
  std::vector<Sums> sums(omp_get_max_threads() * O);  // a row for each thread
#pragma omp parallel
  {
    std::vector<float> x(I * panels.width()), y(O * panels.width());
#pragma omp for schedule(static)
    for (int64_t c = 0; c < O; c++)
      if (j.norm != BATCH) statistics(j, c);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < panels.count; i++) {
      const Panel p = panels[i];
      const int64_t n = p.width();
      input(j, p, x.data());
      dnnl_sgemm('N', 'N', O, n, I, 1, j.w, I, x.data(), n, 0, y.data(), n);
      for (int64_t c = 0; j.norm == BATCH && c < O; c++) sums[omp_get_thread_num() * O + c].add(&y[c * n], n);
      p.each_row(O, area, [&](int64_t c, int64_t at, int64_t from) {
        if (j.norm == BATCH || j.y != j.z) std::copy_n(&y[from], p.columns, j.y + at);
        if (j.norm != BATCH) apply(j, Channel(j, c), &y[from], j.z + at, p.columns);
      });
    }
    if (j.norm == BATCH) {
#pragma omp for schedule(static)
      for (int64_t c = 0; c < O; c++) {
        Sums all;
        for (size_t i = c; i < sums.size(); i += O)
          all.n += sums[i].n, all.total += sums[i].total, all.squares += sums[i].squares;
        statistics(j, c, all);
      }
#pragma omp for schedule(static)
      for (int64_t k = 0; k < j.N * O; k++) apply(j, Channel(j, k % O), j.y + k * area, j.z + k * area, area);
    }
  }
}

void dense_backward(const Job& j) {
  const int64_t area = j.area(), I = j.C * j.K * j.K, O = j.O, threads = omp_get_max_threads();
  const Panels panels(j);
  std::vector<Channel> channels(O);
  std::vector<float> partial(j.gw ? threads * O * I : 0, 0.f);  // a weight gradient for each thread
#pragma omp parallel
  {
    std::vector<float> x(I * panels.width()), g(O * panels.width());
#pragma omp for schedule(static)
    for (int64_t c = 0; c < O; c++) channels[c] = channel_gradient(j, c);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < panels.count; i++) {
      const Panel p = panels[i];
      const int64_t n = p.width();
      p.each_row(O, area, [&](int64_t c, int64_t at, int64_t to) { gradient(j, channels[c], at, p.columns, &g[to]); });
      if (j.gw) {
        input(j, p, x.data());
        dnnl_sgemm('N', 'T', O, I, n, 1, g.data(), n, x.data(), n, 1, &partial[omp_get_thread_num() * O * I], I);
      }
      if (j.gx) {
        dnnl_sgemm('T', 'N', I, n, O, 1, j.w, I, g.data(), n, 0, x.data(), n);
        p.each_row(I, area, [&](int64_t, int64_t at, int64_t from) { std::copy_n(&x[from], p.columns, j.gx + at); });
      }
    }
#pragma omp for schedule(static)
    for (int64_t k = 0; k < (j.gw ? O * I : 0); k++) {
      j.gw[k] = 0;
      for (int64_t i = 0; i < threads; i++) j.gw[k] += partial[i * O * I + k];
    }
  }
}

}  // namespace

// ---------------------------------------------------------------------------------------- what fast.py calls
extern "C" void forward(const Layer* l, const Tensors* t, double eps, double momentum) {
  (l->depthwise ? depthwise_forward : dense_forward)(Job{*l, *t, eps, momentum});
}
extern "C" void backward(const Layer* l, const Tensors* t) {
  (l->depthwise ? depthwise_backward : dense_backward)(Job{*l, *t, 0, 0});
}
// Each plane times its own factor, and the sum over each plane of a product.
extern "C" void scale_planes(const float* x, const float* factor, int64_t planes, int64_t area, float* y) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < planes; i++)
    for (int64_t k = i * area; k < (i + 1) * area; k++) y[k] = x[k] * factor[i];
}
extern "C" void multiply_planes(const float* x, const float* g, int64_t planes, int64_t area, float* sums) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < planes; i++) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t k = i * area; k < (i + 1) * area; k++) s += x[k] * g[k];
    sums[i] = s;
  }
}
