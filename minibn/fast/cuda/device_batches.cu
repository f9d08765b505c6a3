// A training batch from uint8 images on the device. H, W, C and PAD are macros.
#include "common.cuh"
#include "rounded.cuh"

// images (N, H, W, C), classes (N,); order, crops (epoch's images,), (epoch's images, 3) -> of the
// entries start, start + 1, ...: x (B, H, W, C) cropped, mirrored and scaled, labels (B,).
// One block per image; its threads loop over the values, and write each once.
// crops: rows from the top and columns from the left of the image with PAD black pixels around it,
// and whether it is mirrored.
EXPORT __launch_bounds__(256) batch(const uint8_t* images, const long long* classes,
                                    const int* order, const uint8_t* crops, int start, real* x,
                                    long long* labels) {
  int n = blockIdx.x;
  size_t source = order[start + n];
  const uint8_t* image = images + source * (H * W * C);
  const uint8_t* crop = crops + size_t(start + n) * 3;
  int top = crop[0] - PAD, left = crop[1] - PAD, mirrored = crop[2];
  for (int k = threadIdx.x; k < H * W * C; k += blockDim.x) {
    int c = k % C, j = k / C % W, i = k / (C * W);
    int row = i + top, column = (mirrored ? W - 1 - j : j) + left;
    bool inside = row >= 0 && row < H && column >= 0 && column < W;
    real value = inside ? image[(row * W + column) * C + c] : 0;
    x[size_t(n) * (H * W * C) + k] = plus(times(value, real(4.0 / 255)), real(-2));  // normalize
  }
  if (threadIdx.x == 0) labels[n] = classes[source];
}
