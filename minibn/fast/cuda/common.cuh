// Common to all sources. REAL is float or double, a macro of the launch.
#ifndef EMULATED
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#define DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) char dynamic_shared_[]; \
  type* name = reinterpret_cast<type*>(dynamic_shared_)
#endif

#define EXPORT extern "C" __global__ void

#ifdef REAL
typedef REAL real;
#endif
