from longembed.messages import *
