// The CPU kernels behind asymmlib.fast: one convolution, its batch norm and its activation in one call.
//
// Tensors are float32, contiguous, [N, C, H, W]. Two kinds of convolution are known: depthwise (any kernel side up
// to 5, stride 1 or 2) and dense (1x1, or any side where the input needs no gradient), both with padding K / 2.
// A depthwise convolution may read a second input, `side`, as `copies` times side, then x, then `copies` times side,
// as if the three had been concatenated. No function keeps state. All loops are split statically and every sum has
// a fixed order: equal input and equal thread count give equal bits. (A dynamic schedule would do more harm: Paddle
// ships an old libiomp5, which hands out wrong iterations to code compiled for GCC's libgomp.)
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <omp.h>

extern "C" int dnnl_sgemm(char trans_a, char trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                          int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

namespace {

enum Activation : int64_t { NONE, RELU, RELU6, HARDSWISH };
enum Norm : int64_t { PLAIN, RUNNING, BATCH };  // no batch norm (bias at most), by running or by batch statistics

// The two structs that fast.py fills, field by field in this order.
struct Layer {
  int64_t N, C, H, W, side, copies, O, K, S, activation, norm;
  int64_t oh() const { return (H - 1) / S + 1; }  // K is odd and the padding K / 2
  int64_t ow() const { return (W - 1) / S + 1; }
  int64_t area() const { return oh() * ow(); }
  bool pointwise() const { return K == 1 && S == 1; }
};
struct Tensors {
  const float *x, *side, *w, *gamma, *beta;          // gamma and beta may be missing; beta alone is a bias
  float *running_mean, *running_var, *mean, *scale;  // scale: 1 / sqrt(variance + eps)
  float *y, *z;                                      // convolution's output, and the layer's; may be the same
  const float* gz;                                   // gradients from here on; gx, gside, gw may be missing
  float *gx, *gside, *gw, *ggamma, *gbeta;
};
bool identity(const Layer& l, const Tensors& t) {  // nothing to do behind the convolution
  return l.norm == PLAIN && l.activation == NONE && !t.beta;
}

// ------------------------------------------------------------------------------------------- vectors of floats
#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
typedef float Vec __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

inline Vec load(const float* p) { return *(const Vec*)p; }
inline void store(float* p, Vec v) { *(Vec*)p = v; }
inline float sum(Vec v) {
  float s = 0;
  for (int i = 0; i < LANES; i++) s += v[i];
  return s;
}

// ------------------------------------------------------------------------------------- batch norm and activation
template <int A> inline float activate(float v) {
  if (A == RELU) return v > 0 ? v : 0.f;
  if (A == RELU6) return v < 0 ? 0.f : v > 6 ? 6.f : v;
  if (A == HARDSWISH) {
    float gate = v + 3 < 0 ? 0.f : v + 3 > 6 ? 6.f : v + 3;
    return v * gate * (1 / 6.f);
  }
  return v;
}
template <int A> inline float slope(float v) {
  if (A == RELU) return v > 0 ? 1.f : 0.f;
  if (A == RELU6) return v > 0 && v < 6 ? 1.f : 0.f;
  if (A == HARDSWISH) return v <= -3 ? 0.f : v >= 3 ? 1.f : (2 * v + 3) * (1 / 6.f);
  return 1.f;
}
#define BY_ACTIVATION(a, f, ...)                                             \
  (a == RELU        ? f<RELU>(__VA_ARGS__)                                   \
   : a == RELU6     ? f<RELU6>(__VA_ARGS__)                                  \
   : a == HARDSWISH ? f<HARDSWISH>(__VA_ARGS__)                              \
                    : f<NONE>(__VA_ARGS__))

// Batch norm of one channel, as k * y + o.
struct Channel {
  float k, o, mean, from_sum = 0, from_dot = 0;  // the last two: what the batch statistics add to the gradient
  Channel() = default;
  Channel(const Tensors& t, int64_t c) : mean(t.mean[c]) {
    k = t.scale[c] * (t.gamma ? t.gamma[c] : 1.f);
    o = (t.beta ? t.beta[c] : 0.f) - mean * k;
  }
};
template <int A> void apply_row(Channel c, const float* y, int64_t n, float* z) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) z[i] = activate<A>(c.k * y[i] + c.o);
}
template <int A> void sums_row(Channel c, const float* gz, const float* y, int64_t n, double* total, double* dot) {
  float a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
  for (int64_t i = 0; i < n; i++) {
    float g = gz[i] * slope<A>(c.k * y[i] + c.o);
    a += g;
    b += g * (y[i] - c.mean);
  }
  *total += a;
  *dot += b;
}
template <int A> void gradient_row(Channel c, const float* gz, const float* y, int64_t n, float* gy) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    float g = gz[i] * slope<A>(c.k * y[i] + c.o);
    gy[i] = c.k * (g - c.from_sum - (y[i] - c.mean) * c.from_dot);
  }
}

// z = act(bn(y)), and its gradient, for n pixels of one channel from index `at` on.
void apply(const Layer& l, Channel c, const Tensors& t, int64_t at, int64_t n) {
  BY_ACTIVATION(l.activation, apply_row, c, t.y + at, n, t.z + at);
}
void gradient(const Layer& l, Channel c, const Tensors& t, int64_t at, int64_t n, float* gy) {
  BY_ACTIVATION(l.activation, gradient_row, c, t.gz + at, t.y + at, n, gy);
}

// Count, mean and sum of squared deviations; merged as Chan et al. (1983) do, so that no digits cancel.
struct Moments {
  double n = 0, mean = 0, squares = 0;
  void merge(const Moments& b) {
    if (b.n == 0) return;
    double step = b.mean - mean, all = n + b.n;
    mean += step * (b.n / all);
    squares += b.squares + step * step * (n * b.n / all);
    n = all;
  }
  void add(const float* p, int64_t length) {
    for (int64_t i = 0; i < length; i += 1024) add_block(p + i, std::min<int64_t>(1024, length - i));
  }
  void add_block(const float* p, int64_t n) {
    float total = 0, deviations = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) total += p[i];
    const float m = total / n;
#pragma omp simd reduction(+ : deviations)
    for (int64_t i = 0; i < n; i++) deviations += (p[i] - m) * (p[i] - m);
    Moments block;
    block.n = n, block.mean = m, block.squares = deviations;
    merge(block);
  }
};

// The statistics that a channel without batch statistics is normalised by.
void fixed_statistics(const Layer& l, const Tensors& t, int64_t c, double eps) {
  t.mean[c] = l.norm == PLAIN ? 0.f : t.running_mean[c];
  t.scale[c] = l.norm == PLAIN ? 1.f : 1 / std::sqrt(t.running_var[c] + eps);
}
// Batch statistics of a channel; updates the running ones as Paddle does (biased variance).
void batch_statistics(const Tensors& t, int64_t c, const Moments& m, double eps, double momentum) {
  const double variance = m.squares / m.n;
  t.mean[c] = m.mean;
  t.scale[c] = 1 / std::sqrt(variance + eps);
  t.running_mean[c] = momentum * t.running_mean[c] + (1 - momentum) * m.mean;
  t.running_var[c] = momentum * t.running_var[c] + (1 - momentum) * variance;
}
// First half of batch norm's gradient: gamma's and beta's, and what the second half needs of them.
Channel channel_gradient(const Layer& l, const Tensors& t, int64_t c) {
  Channel channel(t, c);
  double total = 0, dot = 0;
  const int64_t area = l.area();
  for (int64_t n = 0; n < l.N; n++) {
    const int64_t at = (n * l.O + c) * area;
    BY_ACTIVATION(l.activation, sums_row, channel, t.gz + at, t.y + at, area, &total, &dot);
  }
  if (t.gbeta) t.gbeta[c] = total;
  if (t.ggamma) t.ggamma[c] = dot * t.scale[c];
  if (l.norm == BATCH) {
    channel.from_sum = total / (l.N * area);
    channel.from_dot = dot / (l.N * area) * t.scale[c] * t.scale[c];
  }
  return channel;
}

// -------------------------------------------------------------------------------------------- depthwise
// A plane is kept zero-padded and split into S x S phases (rows and columns by their remainder), so that every tap
// of the kernel is one constant offset into a flat array, whatever the stride.
struct Plane {
  int64_t H, W, K, S, pad, OH, OW, reach, PW, PH, phase;
  explicit Plane(const Layer& l) : H(l.H), W(l.W), K(l.K), S(l.S), pad(l.K / 2), OH(l.oh()), OW(l.ow()) {
    reach = (K - 1) / S;  // how far the taps go within a phase
    PW = OW + reach, PH = OH + reach, phase = PW * PH;
  }
  int64_t padded() const { return S * S * phase + 4 * LANES + PW; }           // with room to read past the end
  int64_t bordered() const { return (OH + 2 * reach) * PW + 4 * LANES + PW; }  // the output's gradient
  int64_t tap(int64_t t) const {
    const int64_t ky = t / K, kx = t % K;
    return ((ky % S) * S + kx % S) * phase + inner(t);
  }
  int64_t inner(int64_t t) const { return (t / K / S) * PW + t % K / S; }
  int64_t phase_of(int64_t t) const { return (t / K % S) * S + t % K % S; }
};

// Plane -> phases; the borders of `to` stay zero.
template <int S> void split(const Plane& p, const float* x, float* to) {
  for (int64_t y = 0; y < p.H; y++, x += p.W) {
    const int64_t yy = y + p.pad;
    if (yy / S >= p.PH) continue;  // a last row that no output sees
    for (int f = 0; f < S; f++) {
      const int64_t first = (f + p.pad) % S, i = (first + p.pad) / S;
      const int64_t n = std::min((p.W - first + S - 1) / S, p.PW - i);
      float* d = to + (yy % S * S + f) * p.phase + yy / S * p.PW + i;
      for (int64_t k = 0; k < n; k++) d[k] = x[first + S * k];
    }
  }
}
// Phases -> plane, added to what is there where `add`.
template <int S> void join(const Plane& p, const float* from, float* x, bool add) {
  for (int64_t y = 0; y < p.H; y++, x += p.W) {
    const int64_t yy = y + p.pad;
    if (!add) std::fill(x, x + p.W, 0.f);
    if (yy / S >= p.PH) continue;
    for (int f = 0; f < S; f++) {
      const int64_t first = (f + p.pad) % S, i = (first + p.pad) / S;
      const int64_t n = std::min((p.W - first + S - 1) / S, p.PW - i);
      const float* s = from + (yy % S * S + f) * p.phase + yy / S * p.PW + i;
      for (int64_t k = 0; k < n; k++) x[first + S * k] += s[k];
    }
  }
}

template <int T, int U> inline void correlate_at(const float* s, const int64_t* taps, const float* w, float* d) {
  Vec a[U];
  for (int u = 0; u < U; u++) a[u] = w[0] * load(s + taps[0] + u * LANES);
#pragma GCC unroll 25
  for (int t = 1; t < T; t++)
    for (int u = 0; u < U; u++) a[u] += w[t] * load(s + taps[t] + u * LANES);
  for (int u = 0; u < U; u++) store(d + u * LANES, a[u]);
}
// d[r, c] = sum over t of w[t] * s[r, c + taps[t]]; rows of s lie `ss` apart, rows of d `ds`. Narrow rows are done
// as one flat run with the gaps between them, into `room`, and copied from there.
template <int T>
void correlate_rows(const float* s, int64_t ss, const int64_t* taps, const float* w, float* d, int64_t ds,
                    int64_t rows, int64_t columns, float* room) {
  if (columns < LANES) {
    const int64_t n = rows * ss;
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) correlate_at<T, 4>(s + i, taps, w, room + i);
    for (; i < n; i += LANES) correlate_at<T, 1>(s + i, taps, w, room + i);
    for (int64_t r = 0; r < rows; r++) std::copy_n(room + r * ss, columns, d + r * ds);
    return;
  }
  for (int64_t r = 0; r < rows; r++, s += ss, d += ds) {
    int64_t c = 0;
    for (; c + 4 * LANES <= columns; c += 4 * LANES) correlate_at<T, 4>(s + c, taps, w, d + c);
    for (; c + LANES <= columns; c += LANES) correlate_at<T, 1>(s + c, taps, w, d + c);
    if (c < columns) correlate_at<T, 1>(s + columns - LANES, taps, w, d + columns - LANES);
  }
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
  for (int t = 0; t < T; t++) a[t] = acc[t];
  for (int64_t i = 0; i < n; i += LANES) {
    const Vec v = load(g + i);
#pragma GCC unroll 25
    for (int t = 0; t < T; t++) a[t] += v * load(x + i + taps[t]);
  }
  for (int t = 0; t < T; t++) acc[t] = a[t];
}

// The plane that output channel c of picture n reads, of the concatenation side..., x, side... (or its gradient).
template <class T> T* source(const Layer& l, T* side, T* x, int64_t n, int64_t c) {
  const int64_t before = l.copies * l.side, area = l.H * l.W;
  if (c >= before && c < before + l.C) return x + (n * l.C + c - before) * area;
  return side ? side + (n * l.side + (c < before ? c : c - before - l.C) % l.side) * area : nullptr;
}
template <class... Rest> void split_any(const Plane& p, Rest... rest) {
  p.S == 1 ? split<1>(p, rest...) : split<2>(p, rest...);
}

void depthwise_forward(const Layer& l, const Tensors& t, double eps, double momentum) {
  const Plane p(l);
  const int64_t T = l.K * l.K, area = l.area();
#pragma omp parallel
  {
    std::vector<float> padded(p.padded(), 0.f), room(p.phase + 4 * LANES);
    int64_t taps[25];
    for (int64_t i = 0; i < T; i++) taps[i] = p.tap(i);
#pragma omp for schedule(static)
    for (int64_t c = 0; c < l.O; c++) {
      Moments moments;
      for (int64_t n = 0; n < l.N; n++) {
        float* y = t.y + (n * l.O + c) * area;
        split_any(p, source(l, t.side, t.x, n, c), padded.data());
        correlate(T, padded.data(), p.PW, taps, t.w + c * T, y, p.OW, p.OH, p.OW, room.data());
        if (l.norm == BATCH) moments.add(y, area);
      }
      if (l.norm == BATCH) batch_statistics(t, c, moments, eps, momentum);
      else fixed_statistics(l, t, c, eps);
      if (identity(l, t)) continue;
      for (int64_t n = 0; n < l.N; n++) apply(l, Channel(t, c), t, (n * l.O + c) * area, area);
    }
  }
}

// Buffers of one thread, and the taps that lead back from the output's gradient to each phase of the input's.
struct DepthwiseGradient {
  const Layer& l;
  const Tensors& t;
  const Plane p;
  std::vector<float> padded, bordered, parts, room;
  float* inside;  // the first pixel within the zero border
  int64_t taps[25], back[4][25], from[4][25], count[4] = {0, 0, 0, 0};

  DepthwiseGradient(const Layer& l, const Tensors& t)
      : l(l), t(t), p(l), padded(p.padded(), 0.f), bordered(p.bordered(), 0.f), parts(p.padded()),
        room(p.phase + 4 * LANES), inside(bordered.data() + p.reach * p.PW + p.reach) {
    for (int64_t i = 0; i < l.K * l.K; i++) {
      const int64_t f = p.phase_of(i);
      taps[i] = p.tap(i), back[f][count[f]] = -p.inner(i), from[f][count[f]++] = i;
    }
  }
  // Gradients of output channel c, whose input plane's gradient other channels may have begun (`add`).
  void channel(int64_t c, bool add) {
    const Channel statistics = channel_gradient(l, t, c);
    const int64_t T = l.K * l.K;
    Vec acc[25] = {};
    for (int64_t n = 0; n < l.N; n++) {
      for (int64_t r = 0; r < p.OH; r++)
        gradient(l, statistics, t, (n * l.O + c) * l.area() + r * p.OW, p.OW, inside + r * p.PW);
      if (t.gw) {
        split_any(p, source(l, t.side, t.x, n, c), padded.data());
        (l.K == 3 ? dots<9> : dots<25>)(inside, padded.data(), taps, p.OH * p.PW, acc);
      }
      if (float* gx = source(l, t.gside, t.gx, n, c)) input(t.w + c * T, gx, add);
    }
    for (int64_t i = 0; t.gw && i < T; i++) t.gw[c * T + i] = sum(acc[i]);
  }
  void input(const float* kernel, float* gx, bool add) {
    float w[25];
    for (int64_t f = 0; f < l.S * l.S; f++) {
      for (int64_t i = 0; i < count[f]; i++) w[i] = kernel[from[f][i]];
      if (l.S == 1 && !add)  // straight into place
        return correlate(count[f], inside + p.pad * p.PW + p.pad, p.PW, back[f], w, gx, p.W, p.H, p.W, room.data());
      correlate(count[f], inside, p.PW, back[f], w, parts.data() + f * p.phase, p.PW, p.PH, p.PW, room.data());
    }
    l.S == 1 ? join<1>(p, parts.data(), gx, add) : join<2>(p, parts.data(), gx, add);
  }
};

void depthwise_backward(const Layer& l, const Tensors& t) {
  const int64_t last = l.copies * l.side + l.C;  // where the copies of side behind x begin
#pragma omp parallel
  {
    DepthwiseGradient gradient(l, t);
#pragma omp for schedule(static, 1)  // one by one: the planes of side come first and take longer
    for (int64_t j = 0; j < l.side + l.C; j++) {
      if (j >= l.side) {
        gradient.channel(l.copies * l.side + j - l.side, false);
        continue;
      }
      for (int64_t k = 0; k < l.copies; k++) {
        gradient.channel(k * l.side + j, k > 0);
        gradient.channel(last + k * l.side + j, true);
      }
    }
  }
}

// ------------------------------------------------------------------------------- dense: pointwise and stem
// The columns (pixels) are cut into panels that stay in cache: some whole pictures, or a stretch of one picture.
struct Panel {
  int64_t n, pictures, first, columns;  // columns of each picture
  int64_t width() const { return pictures * columns; }
};
std::vector<Panel> cut(const Layer& l) {
  const int64_t area = l.area(), unit = l.pointwise() ? 1 : l.ow(), threads = omp_get_max_threads();
  const int64_t even = (l.N * area + threads - 1) / threads;  // columns, so that every thread has some
  const int64_t fitting = std::min<int64_t>(2048, std::max<int64_t>(256, (1 << 18) / (l.C * l.K * l.K + l.O)));
  const int64_t wanted = std::max<int64_t>(unit, std::min(fitting, std::max<int64_t>(even, 16)));
  std::vector<Panel> panels;
  if (l.pointwise() && area < wanted) {
    const int64_t groups = (l.N * area + wanted - 1) / wanted, each = (l.N + groups - 1) / groups;
    for (int64_t n = 0; n < l.N; n += each) panels.push_back({n, std::min(each, l.N - n), 0, area});
    return panels;
  }
  const int64_t pieces = (area + wanted - 1) / wanted, rows = area / unit;
  const int64_t each = (rows + pieces - 1) / pieces * unit;
  for (int64_t n = 0; n < l.N; n++)
    for (int64_t c = 0; c < area; c += each) panels.push_back({n, 1, c, std::min(each, area - c)});
  return panels;
}

// A panel of a tensor [N, channels, area] as a matrix: the tensor's own memory where one picture is enough.
struct Matrix {
  float* data;
  int64_t stride;
};
Matrix view(const Panel& p, const float* tensor, int64_t channels, int64_t area, float* room) {
  if (p.pictures == 1) return {(float*)tensor + p.n * channels * area + p.first, area};
  return {room, p.width()};
}
template <bool TO_TENSOR> void copy(const Panel& p, float* tensor, int64_t channels, int64_t area, float* room) {
  if (p.pictures == 1) return;
  for (int64_t i = 0; i < p.pictures; i++)
    for (int64_t c = 0; c < channels; c++) {
      float *t = tensor + ((p.n + i) * channels + c) * area, *m = room + c * p.width() + i * area;
      TO_TENSOR ? std::copy_n(m, area, t) : std::copy_n(t, area, m);
    }
}
// The panel's input as a matrix [C * K * K, width]: every pixel under every tap (im2col) where K > 1.
Matrix input(const Layer& l, const Tensors& t, const Panel& p, float* room) {
  if (l.pointwise()) {
    copy<false>(p, (float*)t.x, l.C, l.area(), room);
    return view(p, t.x, l.C, l.area(), room);
  }
  const int64_t ow = l.ow(), pad = l.K / 2, first = p.first / ow, rows = p.columns / ow;
  float* d = room;
  for (int64_t i = 0; i < l.C * l.K * l.K; i++) {
    const int64_t ky = i / l.K % l.K - pad, kx = i % l.K - pad;
    const int64_t low = kx < 0 ? std::min((-kx + l.S - 1) / l.S, ow) : 0;
    const int64_t high = std::max(low, std::min(ow, l.W - kx > 0 ? (l.W - 1 - kx) / l.S + 1 : 0));
    for (int64_t r = 0; r < rows; r++, d += ow) {
      const int64_t yy = (first + r) * l.S + ky;
      std::fill(d, d + ow, 0.f);
      if (yy < 0 || yy >= l.H) continue;
      const float* s = t.x + ((p.n * l.C + i / (l.K * l.K)) * l.H + yy) * l.W + kx;
      for (int64_t c = low; c < high; c++) d[c] = s[c * l.S];
    }
  }
  return {room, p.columns};
}
int64_t widest(const std::vector<Panel>& panels) {
  int64_t width = 0;
  for (const Panel& p : panels) width = std::max(width, p.width());
  return width;
}

void dense_forward(const Layer& l, const Tensors& t, double eps, double momentum) {
  const int64_t area = l.area(), I = l.C * l.K * l.K, O = l.O;
  const std::vector<Panel> panels = cut(l);
  const int64_t width = widest(panels), count = panels.size();
  std::vector<Moments> moments(l.norm == BATCH ? omp_get_max_threads() * O : 0);  // a row for each thread
#pragma omp parallel
  {
    std::vector<float> x_room(I * width), y_room(O * width);
    if (l.norm != BATCH) {
#pragma omp for schedule(static)
      for (int64_t c = 0; c < O; c++) fixed_statistics(l, t, c, eps);
    }
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count; i++) {
      const Panel& p = panels[i];
      const Matrix x = input(l, t, p, x_room.data()), y = view(p, t.y, O, area, y_room.data());
      dnnl_sgemm('N', 'N', O, p.width(), I, 1, t.w, I, x.data, x.stride, 0, y.data, y.stride);
      if (l.norm == BATCH)
        for (int64_t c = 0; c < O; c++)
          moments[omp_get_thread_num() * O + c].add(y.data + c * y.stride, p.width());
      copy<true>(p, t.y, O, area, y_room.data());
      if (l.norm != BATCH && !identity(l, t))
        for (int64_t k = 0; k < p.pictures * O; k++)
          apply(l, Channel(t, k % O), t, (p.n * O + k) * area + p.first, p.columns);
    }
    if (l.norm == BATCH) {
#pragma omp for schedule(static)
      for (int64_t c = 0; c < O; c++) {
        Moments all;
        for (int64_t i = c; i < (int64_t)moments.size(); i += O) all.merge(moments[i]);
        batch_statistics(t, c, all, eps, momentum);
      }
#pragma omp for schedule(static)
      for (int64_t k = 0; k < l.N * O; k++) apply(l, Channel(t, k % O), t, k * area, area);
    }
  }
}

void dense_backward(const Layer& l, const Tensors& t) {
  const int64_t area = l.area(), I = l.C * l.K * l.K, O = l.O;
  const std::vector<Panel> panels = cut(l);
  const int64_t width = widest(panels), count = panels.size(), threads = omp_get_max_threads();
  std::vector<Channel> channels(O);
  std::vector<float> partial(t.gw ? threads * O * I : 0, 0.f);  // a weight gradient for each thread
#pragma omp parallel
  {
    std::vector<float> x_room(I * width), g_room(O * width);
    float* own = partial.data() + omp_get_thread_num() * O * I;
#pragma omp for schedule(static)
    for (int64_t c = 0; c < O; c++) channels[c] = channel_gradient(l, t, c);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count; i++) {
      const Panel& p = panels[i];
      const int64_t n = p.width();
      for (int64_t k = 0; k < p.pictures * O; k++)
        gradient(l, channels[k % O], t, (p.n * O + k) * area + p.first, p.columns,
                 g_room.data() + k % O * n + k / O * p.columns);
      if (t.gw) {
        const Matrix x = input(l, t, p, x_room.data());
        dnnl_sgemm('N', 'T', O, I, n, 1, g_room.data(), n, x.data, x.stride, 1, own, I);
      }
      if (t.gx) {
        const Matrix gx = view(p, t.gx, I, area, x_room.data());
        dnnl_sgemm('T', 'N', I, n, O, 1, t.w, I, g_room.data(), n, 0, gx.data, gx.stride);
        copy<true>(p, t.gx, I, area, x_room.data());
      }
    }
#pragma omp for schedule(static)
    for (int64_t k = 0; k < (t.gw ? O * I : 0); k++) {
      float s = 0;
      for (int64_t i = 0; i < threads; i++) s += partial[i * O * I + k];
      t.gw[k] = s;
    }
  }
}

}  // namespace

// ---------------------------------------------------------------------------------------- what fast.py calls
extern "C" void convolve(const Layer* l, const Tensors* t, double eps, double momentum, int depthwise) {
  (depthwise ? depthwise_forward : dense_forward)(*l, *t, eps, momentum);
}
extern "C" void convolve_gradient(const Layer* l, const Tensors* t, int depthwise) {
  (depthwise ? depthwise_backward : dense_backward)(*l, *t);
}
// Mean of each of `planes` planes.
extern "C" void pool(const float* x, int64_t planes, int64_t area, float* y) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < planes; i++) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t k = 0; k < area; k++) s += x[i * area + k];
    y[i] = s / area;
  }
}
extern "C" void pool_gradient(const float* gy, int64_t planes, int64_t area, float* gx) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < planes; i++) std::fill_n(gx + i * area, area, gy[i] / area);
}
// Each plane times its own factor.
extern "C" void scale(const float* x, const float* factor, int64_t planes, int64_t area, float* y) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < planes; i++)
    for (int64_t k = 0; k < area; k++) y[i * area + k] = x[i * area + k] * factor[i];
}
extern "C" void scale_gradient(const float* x, const float* factor, const float* gy, int64_t planes, int64_t area,
                               float* gx, float* gfactor) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < planes; i++) {
    float s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t k = 0; k < area; k++) {
      s += x[i * area + k] * gy[i * area + k];
      gx[i * area + k] = gy[i * area + k] * factor[i];
    }
    gfactor[i] = s;
  }
}
