"""The papers behind the rules, as BibTeX."""

BIBTEX: dict[str, str] = {
    "vicinal": """\
@software{vicinal,
  title  = {vicinal: training neural networks by local learning},
  author = {{The vicinal authors}},
  year   = {2026},
  note   = {Version 0.1.0},
}""",
    "rumelhart1986": """\
@article{rumelhart1986,
  title   = {Learning representations by back-propagating errors},
  author  = {Rumelhart, David E. and Hinton, Geoffrey E. and Williams, Ronald J.},
  journal = {Nature},
  volume  = {323},
  pages   = {533--536},
  year    = {1986},
}""",
    "rao1999": """\
@article{rao1999,
  title   = {Predictive coding in the visual cortex: a functional interpretation of some extra-classical
             receptive-field effects},
  author  = {Rao, Rajesh P. N. and Ballard, Dana H.},
  journal = {Nature Neuroscience},
  volume  = {2},
  number  = {1},
  pages   = {79--87},
  year    = {1999},
}""",
    "whittington2017": """\
@article{whittington2017,
  title   = {An Approximation of the Error Backpropagation Algorithm in a Predictive Coding Network with Local
             {Hebbian} Synaptic Plasticity},
  author  = {Whittington, James C. R. and Bogacz, Rafal},
  journal = {Neural Computation},
  volume  = {29},
  number  = {5},
  pages   = {1229--1262},
  year    = {2017},
}""",
    "alonso2022": """\
@inproceedings{alonso2022,
  title     = {A Theoretical Framework for Inference Learning},
  author    = {Alonso, Nick and Millidge, Beren and Krichmar, Jeffrey and Neftci, Emre O.},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {35},
  year      = {2022},
  note      = {arXiv:2206.00164},
}""",
    "alonso2024": """\
@inproceedings{alonso2024,
  title     = {Understanding and Improving Optimization in Predictive Coding Networks},
  author    = {Alonso, Nick and Krichmar, Jeffrey and Neftci, Emre},
  booktitle = {Proceedings of the {AAAI} Conference on Artificial Intelligence},
  volume    = {38},
  year      = {2024},
  note      = {arXiv:2305.13562},
}""",
    "goemaere2025": """\
@misc{goemaere2025,
  title  = {Error Optimization: Overcoming Exponential Signal Decay in Deep Predictive Coding Networks},
  author = {Goemaere, C{\\'e}dric and Oliviers, Gaspard and Bogacz, Rafal and Demeester, Thomas},
  year   = {2025},
  note   = {arXiv:2505.20137},
}""",
    "salvatori2024": """\
@inproceedings{salvatori2024,
  title     = {A Stable, Fast, and Fully Automatic Learning Algorithm for Predictive Coding Networks},
  author    = {Salvatori, Tommaso and Song, Yuhang and Yordanov, Yordan and Millidge, Beren and Xu, Zhenghua and
               Sha, Lei and Emde, Cornelius and Bogacz, Rafal and Lukasiewicz, Thomas},
  booktitle = {International Conference on Learning Representations},
  year      = {2024},
  note      = {arXiv:2212.00720},
}""",
    "song2020": """\
@inproceedings{song2020,
  title     = {Can the Brain Do Backpropagation? --- Exact Implementation of Backpropagation in Predictive Coding
               Networks},
  author    = {Song, Yuhang and Lukasiewicz, Thomas and Xu, Zhenghua and Bogacz, Rafal},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020},
}""",
    "salvatori2021": """\
@misc{salvatori2021,
  title  = {Predictive Coding Can Do Exact Backpropagation on Convolutional and Recurrent Neural Networks},
  author = {Salvatori, Tommaso and Song, Yuhang and Lukasiewicz, Thomas and Bogacz, Rafal and Xu, Zhenghua},
  year   = {2021},
  note   = {arXiv:2103.03725},
}""",
    "millidge2022": """\
@article{millidge2022,
  title   = {Predictive Coding Approximates Backprop Along Arbitrary Computation Graphs},
  author  = {Millidge, Beren and Tschantz, Alexander and Buckley, Christopher L.},
  journal = {Neural Computation},
  volume  = {34},
  number  = {6},
  pages   = {1329--1368},
  year    = {2022},
  note    = {arXiv:2006.04182},
}""",
    "rosenbaum2022": """\
@article{rosenbaum2022,
  title   = {On the relationship between predictive coding and backpropagation},
  author  = {Rosenbaum, Robert},
  journal = {{PLoS} {ONE}},
  volume  = {17},
  number  = {3},
  pages   = {e0266102},
  year    = {2022},
  note    = {arXiv:2106.13082},
}""",
    "millidge2020relaxation": """\
@misc{millidge2020relaxation,
  title  = {Activation Relaxation: A Local Dynamical Approximation to Backpropagation in the Brain},
  author = {Millidge, Beren and Tschantz, Alexander and Seth, Anil K. and Buckley, Christopher L.},
  year   = {2020},
  note   = {arXiv:2009.05359},
}""",
    "millidge2020scalability": """\
@misc{millidge2020scalability,
  title  = {Investigating the Scalability and Biological Plausibility of the Activation Relaxation Algorithm},
  author = {Millidge, Beren and Tschantz, Alexander and Seth, Anil and Buckley, Christopher L.},
  year   = {2020},
  note   = {arXiv:2010.06219},
}""",
    "nokland2016": """\
@inproceedings{nokland2016,
  title     = {Direct Feedback Alignment Provides Learning in Deep Neural Networks},
  author    = {N{\\o}kland, Arild},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {29},
  year      = {2016},
  note      = {arXiv:1609.01596},
}""",
    "han2020": """\
@misc{han2020,
  title  = {Extension of Direct Feedback Alignment to Convolutional and Recurrent Neural Network for Bio-plausible
            Deep Learning},
  author = {Han, Donghyeon and Park, Gwangtae and Ryu, Junha and Yoo, Hoi-jun},
  year   = {2020},
  note   = {arXiv:2006.12830},
}""",
    "kingma2015": """\
@inproceedings{kingma2015,
  title     = {Adam: A Method for Stochastic Optimization},
  author    = {Kingma, Diederik P. and Ba, Jimmy},
  booktitle = {International Conference on Learning Representations},
  year      = {2015},
  note      = {arXiv:1412.6980},
}""",
}
"""BibTeX entries by key."""


def bibtex(*keys: str) -> str:
    """The entries of these keys, one after another.

    Example:
        >>> print(bibtex("rumelhart1986").splitlines()[0])
        @article{rumelhart1986,
    """
    return "\n\n".join(BIBTEX[key] for key in keys)
