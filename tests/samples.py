"""The beginnings of real disks, by the names of libblkid: what each of the programs has written.

`BitLocker` is made by hand from libblkid's source (libblkid/src/superblocks/bitlocker.c). The GPT
for sectors of 4096 bytes is sfdisk's, on a loop device of such sectors.
"""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

# The bytes are compressed; zeroes follow up to the size.
_SAMPLES: dict[str, tuple[int, str]] = {
    # cryptsetup luksFormat --type luks2
    "crypto_LUKS": (
        1048576,
        "c-r#`^$y;(kAaB+3>+AsfSG|rP@IuyWNL<6e$l%E(-ld3><d_K*HqW-`~3d-Lc>>b4fi`@E1mYPlzYyd6u*Y|f"
        "b-AOU#2f)D>NuO;+rd1d!gd-&m57s^gRpe%o8mv%#(~#byF=YQguyC%#w8z4bu#DlT8hh4U;WQ3{4W#7)Bsicz"
        "6Bu`!`-3m~<&xWy|@8nI;_$Oj=jcFQr8v;j5Z8?IQqE;X-W",
    ),
    # pvcreate
    "LVM2_member": (
        2097152,
        "c-muN7zHC4_&7Sb`uO{~GD7(u?0Ft5fW*UmjT8(F45QMri_3FelKqm?!rgrx(>x;s1B^;4Ba1_$0@5oB3>X*`p"
        "gINcTLhE-z>ig$2>>$A6BG",
    ),
    # mkswap
    "swap": (
        1048576,
        "c-muN7zLwX6pU2B2*m%P?2H{|nS1B>6t+w&epIS9k!dt^M!_f;1*2dTjDk@x3P!;w7!Dvf+%X_Hz|q;&2mtKL3rq",
    ),
    # mksquashfs
    "squashfs": (
        4096,
        "c-qS-E-dC?U|?uh<jH1WU}9hdvKbi!84dtR79jfp0|b;XLg*YQ{T~Waq4Fo7v?WwN4oYWaa#e68GF043PN_J3f"
        "`KKs%jTvJj{w7>nT<09djvoA1XNC#V<J%8a8<AI^k#zvOlc;6&v-mLZS0ZoBHjJ+>6T^lc|G@=G;=a*&$7{;6s"
        "O51zv1VJPclGlR?clHY<>#746KHNw_`z8Bs4InX`DTA;LL=$kXbBGjW#fBWR93OS5bNY4i$Yvb5XV9d`EZ_EYs"
        "S~>^UPe!$Mj>pJDdVBNL{~Y&V$I=*XDm8dO*3$rK>9L}jbWPlgL}0-Lw&;9!`xlV3@oApz<^Rt9hwF{nd5C=Ik"
        "YIKhFHGvF4Zmwdw|?gb^xQ|cI&GDbNt1I>geVrc-8X^a4C+G?u",
    ),
    # mkfs.erofs
    "erofs": (
        4096,
        "c-muN7zLwX6pU2x=;7A~pB)!GVFt2!7*rTIpyKU{JlP<6)?{V|MkMuXOI>7URD1bOkLI6xYI%MOrS`J|@mog*2"
        "2UveKM)|xw?W-e=i*_(ibcN)l(u1Dg0pRbY)vTJ9>_L;vYml!b12&l$kx--OUlnLNi9h(EiNM9K5ZoTG2(C^GZ"
        "y`taCaiyrwU~2LfPsNccd4UCgHVT8p(bp9QHF|(GRmn0x3)+A$Fpeua9ItGYRG!;P9Ub+<%N9yE5{NOY#zPQ?d"
        "GQNh1RTGm`x*IP7P{Vt+;^7g6a;3(0&|65`JshyScm<1Z;QkNEV%Mnd>nBiV0`WWPOX_-5v1mf*A>6uwMI_Op`"
        "^z7<>m_kv|x",
    ),
    # xorriso -as mkisofs
    "iso9660": (
        378880,
        "c-rmPO>fgM7{GA{kSH(WuuYqoK(Y`=2uaz1aZ6oivuNVTcBkzG8sf48lVDsqA@P~G@Qo@y0=Ub<HuiQH2gLqAw"
        "Y6hEejcZ36-5XD0000000000000000000000000000000000000000000000000000000005AvVV32IkmoSony"
        "OgUr_Fcyz8z`Ks2g9?x9Igm*$$O=52hEV9}mP#do&|@)21gr-@1SMWh$<8>*Xc4VV#Rt=5d}br%SS*_472#)2C"
        "UQFK6+xK9VCdi1UN7tJ|1vr1Xc552hu~62IVQdEQ^i`^ztuo@bdjHjw?{_y9lJ%Z{54{uw{_@BaV*;PUu#?lZP"
        ";t|#Arh-TwqGAX7Z#U%Ot41ZK87n3{t>-U-`T{flfC9`eNY!^N0nm6a|A-P!b_hPOMnL9cEwSl$af+tv4HxjY6"
        "v$HF<#e5q)e{!{}I;e}*>Ludc?%Qp#(1tFYQfchnU#Rry;|KmH0Pw%jZj#&#UlZp{^EzKy$&0Y2rL*dlbY{4!r"
        "Ky8<YOSbazi~ELWk=J_x*2LO{kUnY3$nCMHrAUBS(=fSe$xkCNw2G-4o3NAqzkX5vUMm_kVE5@Y{r9;@oU=cE%"
        "uF8rZlPu#@5o?u~RygF@ru77)!=<rI~i?xCv7gZd0z?(YVqwZb!wF2)0ew)iQNFs`k>RzW}!6FK7",
    ),
    # mkfs.btrfs
    "btrfs": (
        125829120,
        "c-rmPy-pi38~|`%Qj(QQeF7F<fPwK^F{G+0zGj42cmW2ag4APxt=+pJu~)D#WFe10*w}f1s!u?;^X0=N3`k_*_"
        "meI@`){8e%aZL7000000000000000000000000000000000000000000000000000000000000000000000000"
        "0000000Wgv+lt-IwBj|MY*J{{FUpy?1o@zk7QeLROY%F~0kyv$emy`@LN^DEd_>-^iwav8bx%jWTJ)(qZMrr&x"
        "Rj?<Zq*YR#B_ZjKdZX$PTL7=EyRUesB=zxwoVZRO%@`TSt#$FJvqop&uRv4;@qwOy3IjikoXL_RB*USp7smT1*"
        "JU2voL?bP@@IsgEYlWVnWE+o6`DBqvV=SlrulFyU+$<a7_?KpdP+4#}AK8m-J-M=+!oO#;*jm8<T3hi0rjPun_"
        "=D$7famM-jFzlzgN(}SG=43wKoVcb8)=3ioIQ_=bi&v{h^_^gM",
    ),
    "BitLocker": (
        1048576,
        "c-rmIAx;B97zN;&S;JKjKfb}NnMqo^VbYUu0WN?=<2X%KgGbg^V`k+V6xn>AdE!0wZs+%Cy+&Iim5222JYQdrk"
        "5AvHw~zbh;pdW5%A+YGr^H{qeE9$X000000000000000000000000000000000000000000000000000000000"
        "00000000000000000009ZxqHQEw$DjSPDa_uLl0RR910000000000000000000000000000000000000000000"
        "0000000000000000000000000000002&P_$m7EitFEvB)FWesUTB0000000000000000000000000000000000"
        "000000000000000000000000000000000000000000Kg7K>owXEb1EB)JaX-)UopQEss",
    ),
}
KINDS = tuple(_SAMPLES)
LARGE_SECTOR_BYTES = 8388608
_GPT_BEGINNING = (
    "c-muN7zINaFfqLQ|NlQDkoBLPblst=MniBEjDk@x3P!;w7zLwX6pVsVFbYNnaCP%k2yhGvVPIfnhyn7i)p))Ji"
    "8Dgw;k`<zz%MBOn)}wH$p^hM`WrtjkNuGB!UR>;0L5p8r_CD;-BB<KM!_f;1*2dTjDk@x3P!;w7zLwXZ~%>Bt%"
    "LGEE(z}PW>|32?xgi%tLqQWs`zf%wL`G^owu(Jtl$5i5mjF*Loq`E73^PcdyK!irO3Un(l+ykd+ig>qbn{*+dF"
    "Y@*Q<2=wLnCQ0XneopAA)C5ko!@mH+_P3_Gs"
)
_GPT_END = (
    "c-rmTze|Ea9LMpm4n-J*<Wxfr4e=oT0fvfFJ=B9B(OA<%kdvV<4nbjaZjK=|=;mS=&-M%o4uUjPql1f!L{sSCk"
    "Guru7LoVsIKFqE<M_hux0llFou4<iWk{hBY#coMKibXRXvKPUXM0A}Cl2{FRQ1o5q~u2auN<gvWFM0HV<r&))N"
    "ea$wNh(46meDeGvR*0vn5W|e`Wq&QWE2l761SM0000000000000000000000000mch~Si8mHLI~Q@t#dx3VYU`"
    "7HxH>(befw97zRKVAmzrsxUgz$=i<e*K;XvhgYBo3XPrNPw00000i(v!=GBxA"
)


def write(kind: str, path: Path) -> Path:
    """Writes the disk of a kind to `path`, with zeroes behind its beginning."""
    size, text = _SAMPLES[kind]
    with path.open("wb") as file:
        file.write(_bytes(text))
        file.truncate(size)
    return path


def write_large_sectors(path: Path) -> Path:
    """Writes a disk with a GPT for sectors of 4096 bytes: an ESP at 1 MiB, `root` from 2 MiB on."""
    with path.open("wb") as file:
        file.write(_bytes(_GPT_BEGINNING))
        end = _bytes(_GPT_END)
        file.truncate(LARGE_SECTOR_BYTES)
        file.seek(LARGE_SECTOR_BYTES - len(end))
        file.write(end)
    return path


def _bytes(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text))
